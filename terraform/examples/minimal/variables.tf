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
