# Sizes and names of a cluster, computed and nothing else.
#
# Owns: the DNS names of all members; each node's bucket, type and zone in one flat map; what a node
# may use of its memory and NVMe; the fair share of each bucket; what the cluster costs about.
# In: the layout that the operator wrote. Out: values that every other module is given.
# Provider-free, so that `terraform test` runs it without an account.

terraform {
  required_version = ">= 1.9"
}

locals {
  domain = "${var.cluster}.internal"

  nodes = merge([
    for bucket, group in var.buckets : {
      for id, node in group.nodes : id => {
        bucket        = bucket
        instance_type = group.instance_type
        zone          = node.zone
        host          = "${id}.${local.domain}"
      }
    }
  ]...)

  coordinators = {
    for id, coordinator in var.coordinators : id => {
      zone = coordinator.zone
      host = "${id}.${local.domain}"
    }
  }

  types   = { for type in distinct([for node in local.nodes : node.instance_type]) : type => merge(local.instance_types, var.more_instance_types)[type] }
  weakest = { for key in ["memory_gib", "disk_gb"] : key => min([for type in local.types : type[key]]...) }

  # One configuration holds for all nodes, so the smallest type decides. The system, the process
  # itself, open databases and buffers of steps (96 MiB each) keep 45% of the memory.
  mib    = 1048576
  memory = local.weakest.memory_gib * 1024
  disk   = floor(local.weakest.disk_gb * 1000000000 / local.mib)

  # Values that no step has covered may lie in the journal's files, but the index over them stays in
  # memory: hence no journal above the size of the memory.
  journal_mib = min(floor(local.disk * 0.25), local.memory, var.journal_disk_gib_max * 1024)
  budgets = {
    journal = {
      memory = "${floor(local.memory * 0.10)}MiB"
      disk   = "${local.journal_mib}MiB"
    }
    cache = {
      records = "${floor(local.memory * 0.30)}MiB"
      memory  = "${floor(local.memory * 0.15)}MiB"
      disk    = "${floor(local.disk * 0.60)}MiB"
    }
  }

  # A partition falls on buckets_per_key buckets; its replicas are all nodes of these.
  weights = { for bucket, group in var.buckets : bucket => group.weight }
  sizes   = sort([for group in var.buckets : format("%06d", length(group.nodes))])
  replicas = {
    min = sum([for size in slice(local.sizes, 0, min(var.buckets_per_key, length(local.sizes))) : tonumber(size)])
    max = sum([for size in slice(reverse(local.sizes), 0, min(var.buckets_per_key, length(local.sizes))) : tonumber(size)])
  }
  shares = {
    for bucket, weight in local.weights : bucket =>
    min(var.partitions, var.partitions * var.buckets_per_key * weight / sum(values(local.weights)))
  }

  # Ten places a bucket and more let the bound of 1.10 times the fair share be met, as places are
  # whole. It is advice: the number is fixed for the life of the data, so nothing here may change it.
  partitions_advised = max(32, pow(2, ceil(log(10 * length(var.buckets) / var.buckets_per_key, 2))))
}
