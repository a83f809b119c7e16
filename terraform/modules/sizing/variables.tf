# What sizing is told; the shapes that the whole cluster is described in.

variable "cluster" {
  description = "Name of the cluster; its members are at <id>.<cluster>.internal."
  type        = string

  validation {
    # Also the beginning of names of load balancers (32 characters) and buckets.
    condition     = can(regex("^[a-z][a-z0-9-]{0,17}[a-z0-9]$", var.cluster))
    error_message = "cluster: 2 to 19 of lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "buckets" {
  description = "Tako's buckets, each a group of nodes of one instance type that mirror each other. Zones are written down, as a node that changes zone is another machine."
  type = map(object({
    instance_type = string
    weight        = optional(number, 1)
    nodes         = map(object({ zone = string }))
  }))

  validation {
    condition     = length(var.buckets) > 0 && alltrue([for group in var.buckets : length(group.nodes) > 0])
    error_message = "buckets: at least one, and none of them empty."
  }
  validation {
    condition = (
      length(distinct(flatten([for group in var.buckets : keys(group.nodes)]))) ==
      length(flatten([for group in var.buckets : keys(group.nodes)]))
    )
    error_message = "buckets: a node is in two of them."
  }
  validation {
    condition     = alltrue([for id in flatten([for group in var.buckets : keys(group.nodes)]) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", id))])
    error_message = "buckets: node ids are the first labels of DNS names: lower-case letters, digits, hyphens."
  }
  validation {
    condition     = alltrue([for group in var.buckets : contains(keys(merge(local.instance_types, var.more_instance_types)), group.instance_type)])
    error_message = "buckets: an instance type that is not known here; describe it in more_instance_types."
  }
  validation {
    condition     = length(distinct([for group in var.buckets : try(merge(local.instance_types, var.more_instance_types)[group.instance_type].architecture, "unknown")])) == 1
    error_message = "buckets: instance types of two architectures, but one release runs on all nodes."
  }
  validation {
    condition     = alltrue([for group in var.buckets : 0.001 <= group.weight && group.weight <= 1000])
    error_message = "buckets: weights are 0.001 to 1000."
  }
}

variable "coordinators" {
  description = "Coordinators by id. The first by id is master until another one is made so."
  type        = map(object({ zone = string }))
}

variable "buckets_per_key" {
  description = "On how many buckets each key lies."
  type        = number

  validation {
    condition     = 1 <= var.buckets_per_key && var.buckets_per_key <= min(16, length(var.buckets))
    error_message = "buckets_per_key: 1 to 16, and not more than there are buckets."
  }
}

variable "partitions" {
  description = "Number of partitions, a power of two; fixed for the life of the data."
  type        = number

  validation {
    condition     = contains([for k in range(0, 13) : pow(2, k)], var.partitions)
    error_message = "partitions: a power of two, 1 to 4096."
  }
}

variable "snapshot_interval_seconds" {
  description = "snapshot.interval of the configuration, for the estimate of costs."
  type        = number
  default     = 10
}

variable "journal_disk_gib_max" {
  description = "The most that a node's journal may take of its NVMe: how long an outage of the store is borne. Replaying it takes time at a start."
  type        = number
  default     = 32
}

variable "more_instance_types" {
  description = "Instance types that instance_types.tf does not know, with one NVMe disk each."
  type = map(object({
    architecture     = string
    vcpus            = number
    memory_gib       = number
    disk_gb          = number
    dollars_per_hour = number
  }))
  default = {}
}

variable "load" {
  description = "What the cluster is expected to do, for the estimate of costs."
  type = object({
    writes_per_second     = optional(number, 100)
    bytes_per_second      = optional(number, 1000000)
    cold_reads_per_second = optional(number, 1)
    stored_bytes          = optional(number, 100000000000)
  })
  default = {}
}
