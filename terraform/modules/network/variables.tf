# What the network is made of.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "domain" {
  description = "Name of the private DNS zone."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC. Private subnets take the lower half, public ones the upper."
  type        = string
}

variable "zones" {
  description = "Availability zones, at most eight. Adding one that sorts between others would move subnets, so begin with those you may ever want."
  type        = list(string)

  validation {
    condition     = 1 <= length(var.zones) && length(var.zones) <= 8
    error_message = "zones: one to eight."
  }
}

variable "bucket_arns" {
  description = "The buckets that may be reached: the store's, the release's, and the system's packages."
  type        = list(string)
}

variable "more_endpoints" {
  description = "Interface endpoints besides secretsmanager, such as ssm and ssmmessages for Session Manager, ec2 and kms."
  type        = list(string)
  default     = []
}

variable "public_subnets" {
  description = "Whether there are subnets that the internet reaches."
  type        = bool
  default     = false
}

variable "nat" {
  description = "Whether members reach the internet. Tako does not need it."
  type        = bool
  default     = false
}

variable "flow_log_days" {
  description = "How long flow logs are kept; 0: there are none."
  type        = number
  default     = 0
}

variable "kms_key_arn" {
  description = "Key for the flow logs; its policy must let CloudWatch Logs use it."
  type        = string
  default     = null
}
