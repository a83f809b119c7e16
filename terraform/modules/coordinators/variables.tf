# What coordinators are made of.

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

variable "coordinators" {
  description = "Coordinators by id."
  type        = map(object({ host = string, zone = string }))
}

variable "instance_type" {
  description = "Type of the instances; of the release's architecture."
  type        = string
}

variable "dns_zone_id" {
  description = "The private DNS zone."
  type        = string
}

variable "store_url" {
  description = "The object store, s3://bucket/prefix."
  type        = string
}

variable "configuration" {
  description = "The configuration, for a first boot."
  type        = string
}

variable "port" {
  description = "Port of all coordinators."
  type        = number
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
