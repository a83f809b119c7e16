# What differs from one account to the next.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "region" {
  description = "Region; zones are its a, b and c."
  type        = string
}

variable "release" {
  description = "Tako's binary for arm64: s3://bucket/key and its SHA-256."
  type        = object({ url = string, sha256 = string })
}

variable "bucket" {
  description = "Name of the bucket that is made for the data."
  type        = string
}

variable "operator_cidrs" {
  description = "Whence tako ctl and tako migrate are used."
  type        = list(string)
  default     = []
}

variable "deployment" {
  description = "Name of the layout; another one for each change of it."
  type        = string
  default     = "cluster"
}

variable "client_cidrs" {
  description = "Whence clients reach the load balancer."
  type        = list(string)
}

variable "access_log_bucket" {
  description = "Bucket for the store's access logs."
  type        = string
  default     = null
}

variable "collector_release" {
  description = "otelcol-contrib for arm64: s3://bucket/key and its SHA-256."
  type        = object({ url = string, sha256 = string })
}

variable "telemetry_endpoint" {
  description = "Where telemetry goes, by OTLP over HTTPS."
  type        = string
}
