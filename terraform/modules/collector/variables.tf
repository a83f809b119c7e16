# What the collector is made of.

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

variable "domain" {
  description = "Name of the private DNS zone."
  type        = string
}

variable "dns_zone_id" {
  description = "The private DNS zone."
  type        = string
}

variable "host" {
  description = "Its name in the private zone."
  type        = string
}

variable "nodes" {
  description = "Nodes by id."
  type        = map(object({ bucket = string, host = string, zone = string, instance_type = string }))
}

variable "http_port" {
  description = "HTTP port of nodes and proxies."
  type        = number
}

variable "instance_type" {
  description = "Type of the instance; of the collector release's architecture."
  type        = string
}

variable "endpoint" {
  description = "Where all goes, by OTLP over HTTPS."
  type        = string

  validation {
    condition     = startswith(var.endpoint, "https://")
    error_message = "endpoint: https://…"
  }
}

variable "scrape_interval" {
  description = "How often figures are asked for."
  type        = string
  default     = "15s"
}

variable "detailed_monitoring" {
  description = "CloudWatch figures by the minute."
  type        = bool
  default     = false
}
