# What nodes are made of.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "subnets" {
  description = "Private subnets by zone."
  type        = map(string)
}

variable "security_group" {
  description = "Security group of the role."
  type        = string
}

variable "instance_profile" {
  description = "Instance profile of the role."
  type        = string
}

variable "ami" {
  description = "Image: with systemd, cloud-init, python3 and glibc 2.34 or newer."
  type        = string
}

variable "release" {
  description = "What is run: s3://bucket/key and its SHA-256."
  type        = object({ url = string, sha256 = string })
}

variable "secret_arns" {
  description = "ARNs of the secrets."
  type        = object({ tls = string, tokens = string, scrape_token = string })
}

variable "kms_key_arn" {
  description = "Key for root volumes; without one, EBS's own."
  type        = string
  default     = null
}

variable "nodes" {
  description = "Nodes by id."
  type        = map(object({ bucket = string, host = string, zone = string, instance_type = string }))
}

variable "dns_zone_id" {
  description = "The private DNS zone."
  type        = string
}

variable "store_url" {
  description = "The object store, s3://bucket/prefix."
  type        = string
}

variable "coordinators" {
  description = "HOST:PORT of all coordinators."
  type        = list(string)
}

variable "drain_seconds" {
  description = "How long a node that is stopped may take to bring its journal into the store."
  type        = number
  default     = 30

  validation {
    condition     = 1 <= var.drain_seconds && var.drain_seconds <= 90
    error_message = "drain_seconds: 1 to 90; an instance that is terminated is not given much longer."
  }
}

variable "environment" {
  description = "Further variables of the process."
  type        = map(string)
  default     = {}
}

variable "detailed_monitoring" {
  description = "CloudWatch figures by the minute."
  type        = bool
  default     = false
}
