# What the bucket is made of.

variable "bucket" {
  description = "Name of the bucket."
  type        = string

  validation {
    # Dots would not fit the wildcard of S3's certificate.
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket: 3 to 63 of lower-case letters, digits and hyphens."
  }
}

variable "kms_key_arn" {
  description = "Key for the objects; without one, S3's own."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "How many days deleted files can still be had. Each costs its storage."
  type        = number
  default     = 3

  validation {
    condition     = 1 <= var.noncurrent_days && var.noncurrent_days <= 90
    error_message = "noncurrent_days: 1 to 90."
  }
}

variable "access_log_bucket" {
  description = "Bucket for access logs. There are as many lines as requests."
  type        = string
  default     = null
}
