# What the policies speak of.

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "bucket_arn" {
  description = "The store's bucket."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket the cluster lies; without slashes at the ends."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-][A-Za-z0-9._/-]*[A-Za-z0-9_-]$", var.prefix))
    error_message = "prefix: two or more letters, digits and ._/- without slashes at the ends; a policy for the whole bucket would be too wide."
  }
}

variable "release_urls" {
  description = "s3://bucket/key of what is run: tako, and collector where there is one."
  type        = map(string)
}

variable "secret_arns" {
  description = "ARNs of the secrets."
  type        = object({ tls = string, tokens = string, scrape_token = string })
}

variable "kms_key_arns" {
  description = "Keys of the bucket, the secrets and the release, where they are not AWS's own."
  type        = list(string)
  default     = []
}

variable "collector" {
  description = "Whether there is a collector."
  type        = bool
  default     = false
}

variable "more_policy_arns" {
  description = "Managed policies for all instances, such as AmazonSSMManagedInstanceCore for Session Manager."
  type        = list(string)
  default     = []
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the roles."
  type        = string
  default     = null
}
