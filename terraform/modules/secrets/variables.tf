# What secrets there are to be.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "collector" {
  description = "Whether there is a collector, which needs a token."
  type        = bool
}

variable "given" {
  description = "ARNs of secrets that exist elsewhere."
  type = object({
    tls          = optional(string)
    tokens       = optional(string)
    scrape_token = optional(string)
  })
  default = {}
}

variable "kms_key_arn" {
  description = "Key for the secrets; without one, Secrets Manager's own."
  type        = string
  default     = null
}
