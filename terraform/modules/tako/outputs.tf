# What an operator needs to know of a cluster.

output "endpoint" {
  description = "Where clients inside the VPC find the proxies."
  value       = "https://proxy.${module.sizing.domain}"
}

output "load_balancer" {
  description = "The load balancer, as AWS calls it."
  value       = module.proxies.load_balancer
}

output "coordinators" {
  description = "Coordinators, as `tako ctl -c` takes them."
  value       = local.coordinator_addresses
}

output "nodes" {
  description = "Nodes by id: where they lie, as `tako ctl attach` takes them, and their instances."
  value = {
    for id, node in module.sizing.nodes : id => {
      bucket   = node.bucket
      zone     = node.zone
      place    = "${id}=${node.host}:${local.ports.http}:${local.ports.rpc}"
      instance = module.nodes.instances[id]
    }
  }
}

output "configuration" {
  description = "The configuration that these variables describe, for `tako check` and `tako migrate`. What is in force, the coordinators know."
  value       = module.configuration.yaml
}

output "store_url" {
  description = "The object store."
  value       = local.store_url
}

output "secret_arns" {
  description = "Where the operator puts secrets."
  value       = module.secrets.arns
}

output "certificate_names" {
  description = "Names that the cluster's certificate must have; add those under which clients outside reach the load balancer."
  value       = ["*.${module.sizing.domain}"]
}

output "estimate" {
  description = "What was reckoned: costs, shares, how long the store may be away."
  value = {
    dollars_per_month = module.sizing.dollars_per_month
    outage_seconds    = module.sizing.outage_seconds
    shares            = module.sizing.shares
    replicas          = module.sizing.replicas
    budgets           = module.sizing.budgets
  }
}

output "policies" {
  description = "The policies by role; the node's is what `tako ctl snapshot` needs of the store."
  value       = module.iam.policies
}

output "user_data" {
  description = "The user data of all instances, as text."
  value = merge(
    module.coordinators.user_data,
    module.nodes.user_data,
    { proxy = module.proxies.user_data },
    var.collector == null ? {} : { collector = module.collector[0].user_data },
  )
}
