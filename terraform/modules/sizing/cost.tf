# What a month costs, about.
#
# Owns: the formula of docs/operations.md, "Requests and their price", and hours times prices of the
# nodes. Prices: us-east-1, on demand, S3 Standard; a month of 30 days. Without coordinators,
# proxies, the load balancer and transfer between zones, which docs/terraform.md names.

locals {
  month      = 2592000
  hours      = local.month / 3600
  e          = 2.718281828459045
  load       = var.load
  interval   = var.snapshot_interval_seconds
  per_second = var.partitions / local.interval

  # All partitions in each interval where writes are many, one step per write where they are few;
  # more only where steps are full before the interval is over (64 MiB).
  steps = max(
    local.per_second * (1 - pow(local.e, -local.load.writes_per_second / local.per_second)),
    local.load.bytes_per_second / (64 * local.mib),
  )
  cost = {
    nodes = sum([for node in local.nodes : local.types[node.instance_type].dollars_per_hour]) * local.hours
    store_requests = sum([
      local.month * local.steps * (0.0000235 + (local.replicas.max - 1) * 0.0000086),
      # Partitions written in most hours: all of them, unless there are fewer writes than that.
      0.047 * min(var.partitions, local.load.writes_per_second * 3600),
      0.47 * length(var.coordinators),
      1.04 * local.load.cold_reads_per_second,
      5 * local.load.bytes_per_second / 1000000,
    ])
    store_bytes = 0.023 * local.load.stored_bytes / 1000000000
  }
}
