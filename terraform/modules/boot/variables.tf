# What an instance is told.

variable "role" {
  description = "node, coordinator, proxy or collector; the unit is called tako-<role>."
  type        = string

  validation {
    condition     = contains(["node", "coordinator", "proxy", "collector"], var.role)
    error_message = "role: node, coordinator, proxy or collector."
  }
}

variable "id" {
  description = "Who it is, for people."
  type        = string
}

variable "region" {
  description = "The region of the instance, its secrets and its release."
  type        = string
}

variable "binary" {
  description = "What it runs: the name in /usr/local/bin, s3://bucket/key, and the SHA-256."
  type        = object({ name = string, url = string, sha256 = string })

  validation {
    condition     = can(regex("^s3://[^/]+/.+", var.binary.url))
    error_message = "binary.url: s3://bucket/key."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.binary.sha256))
    error_message = "binary.sha256: 64 lower-case hexadecimal digits."
  }
}

variable "command" {
  description = "The command line of the unit, word by word."
  type        = list(string)

  validation {
    condition     = alltrue([for word in var.command : can(regex("^[A-Za-z0-9_.:/,@=$\\{\\}-]+$", word))])
    error_message = "command: a word has characters that systemd would take apart."
  }
}

variable "secrets" {
  description = "ARNs of secrets: tls, and where they are needed tokens, scrape_token."
  type = object({
    tls          = string
    tokens       = optional(string)
    scrape_token = optional(string)
  })
}

variable "environment" {
  description = "Further variables of the process; nothing secret."
  type        = map(string)
  default     = {}
}

variable "disk" {
  description = "Whether /var/lib/tako is the NVMe instance storage."
  type        = bool
  default     = false
}

variable "stop_seconds" {
  description = "How long the process may take to end."
  type        = number
  default     = 30
}

variable "configuration" {
  description = "Coordinators: the configuration for the first boot."
  type        = string
  default     = null
}

variable "peers" {
  description = "Coordinators: HOST:PORT of the others, asked for what is in force at a first boot."
  type        = list(string)
  default     = []
}

variable "files" {
  description = "Further files by path, readable by all."
  type        = map(string)
  default     = {}
}
