# What roles may do, and that it is no more.

mock_provider "aws" {}

variables {
  cluster      = "shop"
  region       = "r"
  bucket_arn   = "arn:aws:s3:::data"
  prefix       = "c1"
  release_urls = { tako = "s3://rel/tako", collector = "s3://rel/otelcol" }
  secret_arns  = { tls = "arn:tls", tokens = "arn:tokens", scrape_token = "arn:scrape" }
  collector    = true
}

run "nothing_is_allowed_on_everything_but_finding_proxies" {
  command = plan
  assert {
    condition = [
      for statement in flatten([for policy in values(output.policies) : jsondecode(policy).Statement]) : statement.Sid
      if contains(flatten([statement.Resource]), "*") || length([for action in statement.Action : action if strcontains(action, "*")]) > 0
    ] == ["FindProxies"]
    error_message = jsonencode(output.policies)
  }
}

run "a_node_uses_its_prefix_and_no_more" {
  command = plan
  assert {
    condition = [
      for statement in jsondecode(output.policies.node).Statement : flatten([statement.Resource])
    ] == [["arn:aws:s3:::data"], ["arn:aws:s3:::data/c1/*"], ["arn:aws:s3:::rel/tako"], ["arn:tls", "arn:tokens"]]
    error_message = output.policies.node
  }
  assert {
    condition     = jsondecode(output.policies.node).Statement[0].Condition.StringLike["s3:prefix"] == ["c1", "c1/*"]
    error_message = output.policies.node
  }
}

run "a_proxy_has_nothing_of_the_store" {
  command = plan
  assert {
    condition     = !strcontains(output.policies.proxy, "arn:aws:s3:::data") && !strcontains(output.policies.collector, "arn:aws:s3:::data")
    error_message = output.policies.proxy
  }
}

run "a_coordinator_neither_deletes_data_nor_reads_tokens" {
  command = plan
  assert {
    condition = [
      for statement in jsondecode(output.policies.coordinator).Statement : statement.Resource if contains(statement.Action, "s3:DeleteObject")
    ] == [["arn:aws:s3:::data/c1/backups/*"]]
    error_message = output.policies.coordinator
  }
  assert {
    condition     = !strcontains(output.policies.coordinator, "arn:tokens")
    error_message = output.policies.coordinator
  }
}

run "keys_are_used_where_there_are_any" {
  command = plan
  variables {
    kms_key_arns = ["arn:key"]
  }
  assert {
    condition = [
      for role in ["node", "proxy"] : [for s in jsondecode(output.policies[role]).Statement : s.Action if s.Sid == "UseKeys"][0]
    ] == [["kms:Decrypt", "kms:GenerateDataKey"], ["kms:Decrypt"]]
    error_message = jsonencode(output.policies)
  }
}

run "a_policy_for_the_whole_bucket_is_refused" {
  command = plan
  variables {
    prefix = ""
  }
  expect_failures = [var.prefix]
}
