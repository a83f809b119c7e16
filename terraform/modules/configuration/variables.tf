# What the configuration is made of. Layout, names and budgets come from the sizing module.

variable "deployment" {
  description = "Name of the deployment. A change of nodes, buckets, weights or levels needs another name: tako migrate moves from the active one to one that is called otherwise."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$", var.deployment))
    error_message = "deployment: 1 to 64 letters, digits, dots, underscores and hyphens."
  }
}

variable "master_coordinator" {
  description = "The coordinator that gives the numbers and carries moves out."
  type        = string
}

variable "coordinators" {
  description = "Coordinators by id."
  type        = map(object({ host = string, zone = string }))
}

variable "nodes" {
  description = "Nodes by id."
  type        = map(object({ bucket = string, host = string, zone = string, instance_type = string }))
}

variable "weights" {
  description = "Weights of the buckets."
  type        = map(number)
  default     = {}
}

variable "buckets_per_key" {
  description = "On how many buckets each key lies."
  type        = number
}

variable "partitions" {
  description = "Number of partitions; fixed for the life of the data."
  type        = number
}

variable "store_url" {
  description = "The object store, s3://bucket/prefix."
  type        = string
}

variable "region" {
  description = "Region of the object store."
  type        = string
}

variable "budgets" {
  description = "journal and cache, as the configuration has them."
  type = object({
    journal = object({ memory = string, disk = string })
    cache   = object({ records = string, memory = string, disk = string })
  })
}

variable "ports" {
  description = "Ports of all members."
  type        = object({ http = number, rpc = number, memcached = number, coordinator = number })
}

variable "settings" {
  description = "What else the configuration says; docs/formats/configuration.md explains each."
  type = object({
    durability                  = optional(string, "fsync")
    consistency                 = optional(string, "quorum")
    snapshot_interval           = optional(string, "10s")
    snapshot_bytes              = optional(string, "64MiB")
    tombstone_grace             = optional(string, "1d")
    value_bytes_max             = optional(string, "32MiB")
    request_deadline            = optional(string, "10s")
    background_healing_interval = optional(string, "1d")
    memcached_flush_all         = optional(bool, false)
    backups                     = optional(list(object({ every = string, keep = number })), [])
  })
  default = {}

  validation {
    condition     = contains(["fsync", "os", "none"], var.settings.durability)
    error_message = "settings.durability: fsync, os or none."
  }
  validation {
    condition     = contains(["quorum", "one", "all"], var.settings.consistency)
    error_message = "settings.consistency: quorum, one or all."
  }
}
