# What a cluster is described by. Only what has no default must be said; examples/ show both ends.

variable "cluster" {
  description = "Name of the cluster, 2 to 19 characters; part of the names of everything."
  type        = string
}

variable "release" {
  description = "Tako's binary: s3://bucket/key in the cluster's region and its SHA-256. Of the nodes' architecture, for glibc 2.34."
  type        = object({ url = string, sha256 = string })
}

variable "bucket" {
  description = "Name of the bucket that is made for the data."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket the cluster lies."
  type        = string
  default     = "cluster"
}

# Layout

variable "buckets" {
  description = "Tako's buckets: groups of nodes of one instance type that mirror each other."
  type = map(object({
    instance_type = string
    weight        = optional(number, 1)
    nodes         = map(object({ zone = string }))
  }))
}

variable "coordinators" {
  description = "Coordinators by id; the first by id begins as master."
  type        = map(object({ zone = string }))

  validation {
    condition     = length(var.coordinators) > 0 && alltrue([for id in keys(var.coordinators) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", id))])
    error_message = "coordinators: at least one; ids of lower-case letters, digits and hyphens."
  }
}

variable "deployment" {
  description = "Name of the layout. Another layout needs another name; see docs/terraform.md."
  type        = string
  default     = "cluster"
}

variable "buckets_per_key" {
  description = "On how many buckets each key lies."
  type        = number
  default     = 3
}

variable "partitions" {
  description = "Number of partitions, a power of two; fixed for the life of the data."
  type        = number
  default     = 32
}

variable "snapshot_interval_seconds" {
  description = "How often what was written goes to the store: longer is cheaper."
  type        = number
  default     = 10
}

variable "settings" {
  description = "Further settings of the configuration, as the configuration module has them."
  type = object({
    durability                  = optional(string, "fsync")
    consistency                 = optional(string, "quorum")
    snapshot_bytes              = optional(string, "64MiB")
    tombstone_grace             = optional(string, "1d")
    value_bytes_max             = optional(string, "32MiB")
    request_deadline            = optional(string, "10s")
    background_healing_interval = optional(string, "1d")
    memcached_flush_all         = optional(bool, false)
    backups                     = optional(list(object({ every = string, keep = number })), [])
  })
  default = {}
}

variable "memcached" {
  description = "Whether proxies serve memcached clients."
  type        = bool
  default     = false
}

variable "memcached_plain" {
  description = "Whether they do so without TLS: for clients that cannot. What they say, tokens included, can then be read on the way."
  type        = bool
  default     = false
}

variable "drain_seconds" {
  description = "How long a node that is stopped may take to bring its journal into the store."
  type        = number
  default     = 30
}

# Machines

variable "coordinator_instance_type" {
  description = "Type of the coordinators; of the nodes' architecture."
  type        = string
  default     = "t4g.micro"
}

variable "proxy_instance_type" {
  description = "Type of the proxies; of the nodes' architecture."
  type        = string
  default     = "c7g.medium"
}

variable "proxies" {
  description = "How many proxies there are."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 6 }

  validation {
    condition     = 1 <= var.proxies.min && var.proxies.min <= var.proxies.max
    error_message = "proxies: min is at least 1, and max not below it."
  }
}

variable "ami" {
  description = "Image of all instances; without one, Amazon Linux 2023. It needs systemd, cloud-init, python3 and glibc 2.34."
  type        = string
  default     = null
}

variable "more_instance_types" {
  description = "Instance types that the sizing module does not know, with one NVMe disk each."
  type = map(object({
    architecture     = string
    vcpus            = number
    memory_gib       = number
    disk_gb          = number
    dollars_per_hour = number
  }))
  default = {}
}

variable "detailed_monitoring" {
  description = "CloudWatch figures of nodes, coordinators and the collector by the minute."
  type        = bool
  default     = false
}

# Network

variable "cidr" {
  description = "Addresses of the VPC."
  type        = string
  default     = "10.42.0.0/16"
}

variable "more_zones" {
  description = "Availability zones that nothing lies in yet. A zone that is added later and sorts between others would move subnets."
  type        = list(string)
  default     = []
}

variable "internal" {
  description = "Whether the load balancer is reached from inside only."
  type        = bool
  default     = true
}

variable "client_cidrs" {
  description = "Whence clients reach the load balancer; without any, the VPC."
  type        = list(string)
  default     = null
}

variable "operator_cidrs" {
  description = "Whence tako ctl and tako migrate are used. Who reaches the port must also have a certificate of the cluster."
  type        = list(string)
  default     = []
}

variable "nat" {
  description = "Whether members reach the internet; only a collector that sends outside needs it."
  type        = bool
  default     = false
}

variable "session_manager" {
  description = "Whether instances can be entered by Session Manager; two interface endpoints."
  type        = bool
  default     = false
}

variable "flow_log_days" {
  description = "How long flow logs are kept; 0: there are none."
  type        = number
  default     = 0
}

variable "deletion_protection" {
  description = "Whether the load balancer must be unprotected before it can be deleted."
  type        = bool
  default     = true
}

# Keys, secrets, logs

variable "secret_arns" {
  description = "ARNs of secrets that exist already; those that are not named are made, empty."
  type = object({
    tls          = optional(string)
    tokens       = optional(string)
    scrape_token = optional(string)
  })
  default = {}
}

# An object, so that it is known whether there is a key before a new one has its ARN.
variable "kms_key" {
  description = "Key for bucket, volumes, secrets and flow logs; without one, AWS's own. Its policy must let autoscaling and CloudWatch Logs use it."
  type        = object({ arn = string })
  default     = null
}

variable "release_kms_key" {
  description = "Key of the release's object, where it has one of its own."
  type        = object({ arn = string })
  default     = null
}

variable "noncurrent_days" {
  description = "How many days deleted files of the store can still be had."
  type        = number
  default     = 3
}

variable "access_log_bucket" {
  description = "Bucket for the store's access logs, which exists already."
  type        = string
  default     = null
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the roles."
  type        = string
  default     = null
}

# Telemetry, estimate

variable "collector" {
  description = "An OpenTelemetry collector: its binary (otelcol-contrib) and where it sends to."
  type = object({
    release       = object({ url = string, sha256 = string })
    endpoint      = string
    egress_cidrs  = optional(list(string), [])
    instance_type = optional(string, "t4g.small")
  })
  default = null
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
