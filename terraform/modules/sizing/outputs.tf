# What sizing tells the other modules, and the operator.

output "domain" {
  description = "Name of the private DNS zone."
  value       = local.domain
}

output "nodes" {
  description = "Nodes by id: bucket, instance_type, zone, host."
  value       = local.nodes
}

output "coordinators" {
  description = "Coordinators by id: zone, host."
  value       = local.coordinators
}

output "architecture" {
  description = "arm64 or x86_64, of all nodes."
  value       = one(distinct([for type in local.types : type.architecture]))
}

output "budgets" {
  description = "journal and cache of the configuration."
  value       = local.budgets
}

output "replicas" {
  description = "How many nodes hold a partition: min and max over all choices of buckets."
  value       = local.replicas
}

output "shares" {
  description = "The fair share of each bucket, in partitions."
  value       = local.shares
}

output "partitions_advised" {
  description = "How many partitions would let shares be met within a tenth."
  value       = local.partitions_advised
}

output "outage_seconds" {
  description = "How long the store may be away before journals are full, with the expected load spread evenly. Null where nothing is written."
  value = local.load.bytes_per_second == 0 ? null : floor(
    local.journal_mib * local.mib /
    # Each byte is journalled by every replica.
    (local.load.bytes_per_second * local.replicas.max / length(local.nodes))
  )
}

output "dollars_per_month" {
  description = "An estimate: nodes, store_requests, store_bytes."
  value       = { for part, dollars in local.cost : part => ceil(dollars) }
}
