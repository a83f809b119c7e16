# What proxies are made of.

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

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "coordinators" {
  description = "HOST:PORT of all coordinators."
  type        = list(string)
}

variable "instance_type" {
  description = "Type of the instances; of the release's architecture."
  type        = string
}

variable "size" {
  description = "How many there are."
  type        = object({ min = number, max = number })
}

variable "cpu_percent" {
  description = "Mean use of the processors at which there are as many proxies as needed."
  type        = number
  default     = 50
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

variable "memcached_plain" {
  description = "Whether they are served without TLS."
  type        = bool
}

variable "internal" {
  description = "Whether the load balancer is reached from inside only."
  type        = bool
}

variable "load_balancer_subnets" {
  description = "Subnets of the load balancer by zone."
  type        = map(string)
}

variable "load_balancer_security_group" {
  description = "Security group of the load balancer."
  type        = string
}

variable "deletion_protection" {
  description = "Whether the load balancer must be unprotected before it can be deleted."
  type        = bool
  default     = true
}

variable "dns_zone_id" {
  description = "The private DNS zone."
  type        = string
}

variable "host" {
  description = "Name of the load balancer in the private zone."
  type        = string
}

variable "root_device" {
  description = "What the image calls its root volume."
  type        = string
  default     = "/dev/xvda"
}

variable "environment" {
  description = "Further variables of the process."
  type        = map(string)
  default     = {}
}
