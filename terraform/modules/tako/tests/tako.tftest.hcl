# The whole: a cluster that grows keeps what it has; warnings.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
}

variables {
  cluster = "shop"
  release = { url = "s3://rel/tako", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  bucket  = "example"
  buckets = {
    b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "eu-central-1a" } } }
    b2 = { instance_type = "i4g.large", nodes = { n2 = { zone = "eu-central-1b" } } }
    b3 = { instance_type = "i4g.large", nodes = { n3 = { zone = "eu-central-1c" } } }
  }
  coordinators = { c1 = { zone = "eu-central-1a" } }
}

run "made" {
  assert {
    condition     = yamldecode(output.configuration).active_deployment == "cluster" && output.certificate_names == ["*.shop.internal"]
    error_message = output.configuration
  }
  assert {
    condition     = length(regexall("OTEL", output.user_data["n1"])) == 0
    error_message = "telemetry goes to a collector that is not there"
  }
}

run "grown" {
  variables {
    deployment = "cluster-2"
    buckets = {
      b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "eu-central-1a" }, n4 = { zone = "eu-central-1b" } } }
      b2 = { instance_type = "i4g.large", nodes = { n2 = { zone = "eu-central-1b" }, n5 = { zone = "eu-central-1c" } } }
      b3 = { instance_type = "i4g.large", nodes = { n3 = { zone = "eu-central-1c" }, n6 = { zone = "eu-central-1a" } } }
    }
  }
  assert {
    condition     = alltrue([for id in ["n1", "n2", "n3"] : output.nodes[id].instance == run.made.nodes[id].instance])
    error_message = "nodes were replaced"
  }
  assert {
    condition     = yamldecode(output.configuration).active_deployment == "cluster-2" && keys(yamldecode(output.configuration).deployments["cluster-2"].buckets.b1) == ["n1", "n4"]
    error_message = output.configuration
  }
  assert {
    condition     = output.estimate.replicas == { min = 6, max = 6 }
    error_message = jsonencode(output.estimate.replicas)
  }
}

run "telemetry_goes_to_the_collector" {
  variables {
    collector = { release = { url = "s3://rel/otelcol", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }, endpoint = "https://otlp.example.com" }
  }
  assert {
    condition     = strcontains(output.user_data["n1"], "http://collector.shop.internal:4318") && strcontains(output.user_data["collector"], "n3.shop.internal:5711")
    error_message = output.user_data["collector"]
  }
}

run "one_zone_is_warned_of" {
  command = plan
  variables {
    buckets = {
      b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "eu-central-1a" }, n2 = { zone = "eu-central-1a" }, n3 = { zone = "eu-central-1a" } } }
    }
    buckets_per_key = 1
  }
  expect_failures = [check.zones]
}

run "too_few_partitions_are_warned_of" {
  command = plan
  variables {
    partitions = 16
  }
  expect_failures = [check.partitions]
}
