# Plans and applies the example with a provider that has schemas and makes nothing; `terraform/check`
# also takes the rendered user data and configuration from here.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { id = "example-tako", arn = "arn:aws:s3:::example-tako" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tako-AbCdEf" }
  }
}

variables {
  cluster            = "tako-prod"
  region             = "eu-central-1"
  bucket             = "example-tako"
  operator_cidrs     = ["10.9.0.0/24"]
  client_cidrs       = ["10.0.0.0/8"]
  release            = { url = "s3://example-releases/tako", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  collector_release  = { url = "s3://example-releases/otelcol-contrib", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  telemetry_endpoint = "https://otlp.example.com"
}

run "rendered" {
  assert {
    condition     = length(output.user_data) == 12 + 3 + 2
    error_message = "other members: ${join(", ", keys(output.user_data))}"
  }
  assert {
    condition     = output.estimate.replicas.min == 3 && output.estimate.replicas.max == 3
    error_message = "not three replicas"
  }
  assert {
    condition     = alltrue([for share in values(output.estimate.shares) : share == 16])
    error_message = "four equal buckets have a quarter each"
  }
}
