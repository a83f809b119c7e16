# What the security groups are made of.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "vpc_cidr" {
  description = "Its addresses."
  type        = string
}

variable "s3_prefix_list_id" {
  description = "S3's addresses."
  type        = string
}

variable "ports" {
  description = "Ports of all members."
  type        = object({ http = number, rpc = number, memcached = number, coordinator = number })
}

variable "listener_ports" {
  description = "Ports of the load balancer."
  type        = object({ http = number, memcached = number })
}

variable "memcached" {
  description = "Whether memcached clients are served."
  type        = bool
}

variable "client_cidrs" {
  description = "Whence clients come."
  type        = list(string)
}

variable "operator_cidrs" {
  description = "Whence the operator gives orders."
  type        = list(string)

  validation {
    condition     = !contains(var.operator_cidrs, "0.0.0.0/0")
    error_message = "operator_cidrs: whoever reaches the coordinators' port with a certificate commands the cluster; name addresses."
  }
}

variable "collector" {
  description = "Whether there is a collector."
  type        = bool
  default     = false
}

variable "collector_egress_cidrs" {
  description = "Addresses that the collector may send to, HTTPS."
  type        = list(string)
  default     = []
}
