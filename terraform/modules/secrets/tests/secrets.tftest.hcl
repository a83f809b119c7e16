# Only what is not there already is made, and without values.

mock_provider "aws" {}

variables {
  cluster   = "shop"
  collector = false
}

run "two_without_a_collector" {
  assert {
    condition     = keys(aws_secretsmanager_secret.this) == ["tls", "tokens"] && output.arns.scrape_token == null
    error_message = join(", ", keys(aws_secretsmanager_secret.this))
  }
}

run "given_ones_are_used" {
  variables {
    collector = true
    given     = { tls = "arn:mine" }
  }
  assert {
    condition     = output.arns.tls == "arn:mine" && keys(aws_secretsmanager_secret.this) == ["scrape_token", "tokens"]
    error_message = jsonencode(output.arns)
  }
}
