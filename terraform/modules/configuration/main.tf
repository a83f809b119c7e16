# The cluster's configuration, as YAML.
#
# Owns: the document that coordinators get at their first boot, and that `tako migrate --to` is given
# later. What it may say is described in docs/formats/configuration.md; `terraform/check` has `tako
# check` read what comes out. Provider-free.
# Not here: bringing it to anybody. A cluster that lives is changed by orders to its coordinators.

terraform {
  required_version = ">= 1.9"
}

locals {
  buckets = distinct([for node in var.nodes : node.bucket])

  document = merge(
    {
      active_deployment  = var.deployment
      master_coordinator = var.master_coordinator
      coordinators = {
        for id, coordinator in var.coordinators : id => [coordinator.host, var.ports.coordinator]
      }
      partitions = var.partitions
      store      = { url = var.store_url, region = var.region }
      durability = var.settings.durability
      journal    = var.budgets.journal
      cache      = var.budgets.cache
      snapshot   = { interval = var.settings.snapshot_interval, bytes = var.settings.snapshot_bytes }

      tombstone_grace     = var.settings.tombstone_grace
      value_bytes_max     = var.settings.value_bytes_max
      request_deadline    = var.settings.request_deadline
      memcached_flush_all = var.settings.memcached_flush_all
      deployments = {
        (var.deployment) = {
          read_repair                 = true
          background_healing          = true
          background_healing_interval = var.settings.background_healing_interval
          consistency                 = var.settings.consistency
          hash                        = { buckets_per_key = var.buckets_per_key }
          weights                     = var.weights
          buckets = {
            for bucket in local.buckets : bucket => {
              # No memcached port: its clients come through proxies.
              for id, node in var.nodes : id => {
                host      = node.host
                http_port = var.ports.http
                rpc_port  = var.ports.rpc
                zone      = node.zone
              } if node.bucket == bucket
            }
          }
        }
      }
    },
    length(var.settings.backups) == 0 ? {} : { backups = var.settings.backups },
  )
}

output "yaml" {
  description = "The configuration."
  value = join("\n", [
    "# Rendered from the cluster's Terraform variables. A coordinator reads it at its first boot only:",
    "# afterwards the coordinators have the word (tako ctl, tako migrate).",
    yamlencode(local.document),
  ])

  precondition {
    condition     = contains(keys(var.coordinators), var.master_coordinator)
    error_message = "master_coordinator is none of the coordinators."
  }
}
