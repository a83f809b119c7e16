# What the document says. That `tako` reads it is tried by `terraform/check acceptance`.

variables {
  deployment         = "cluster"
  master_coordinator = "c1"
  coordinators       = { c1 = { host = "c1.s.internal", zone = "z-a" } }
  nodes = {
    n1 = { bucket = "b1", host = "n1.s.internal", zone = "z-a", instance_type = "t" }
    n2 = { bucket = "b1", host = "n2.s.internal", zone = "z-b", instance_type = "t" }
    n3 = { bucket = "b2", host = "n3.s.internal", zone = "z-c", instance_type = "t" }
  }
  weights         = { b1 = 2, b2 = 1 }
  buckets_per_key = 1
  partitions      = 32
  store_url       = "s3://b/p"
  region          = "r"
  budgets = {
    journal = { memory = "1MiB", disk = "100MiB" }
    cache   = { records = "1MiB", memory = "1MiB", disk = "1MiB" }
  }
  ports = { http = 5711, rpc = 4711, memcached = 11211, coordinator = 17400 }
}

run "nodes_lie_in_their_buckets" {
  command = plan
  assert {
    condition     = keys(yamldecode(output.yaml).deployments.cluster.buckets.b1) == ["n1", "n2"]
    error_message = output.yaml
  }
  assert {
    condition     = yamldecode(output.yaml).deployments.cluster.buckets.b2.n3 == { host = "n3.s.internal", http_port = 5711, rpc_port = 4711, zone = "z-c" }
    error_message = output.yaml
  }
  assert {
    condition     = yamldecode(output.yaml).coordinators.c1 == ["c1.s.internal", 17400]
    error_message = output.yaml
  }
  assert {
    condition     = yamldecode(output.yaml).durability == "fsync" && !can(yamldecode(output.yaml).backups)
    error_message = output.yaml
  }
}

run "settings_and_backups_are_said" {
  command = plan
  variables {
    deployment = "cluster-2"
    settings   = { durability = "os", backups = [{ every = "1h", keep = 24 }] }
  }
  assert {
    condition     = yamldecode(output.yaml).active_deployment == "cluster-2" && keys(yamldecode(output.yaml).deployments) == ["cluster-2"]
    error_message = output.yaml
  }
  assert {
    condition     = yamldecode(output.yaml).backups == [{ every = "1h", keep = 24 }] && yamldecode(output.yaml).durability == "os"
    error_message = output.yaml
  }
}

run "no_secret_is_in_it" {
  command = plan
  assert {
    condition     = keys(yamldecode(output.yaml).store) == ["region", "url"]
    error_message = output.yaml
  }
}

run "a_master_that_is_no_coordinator_is_refused" {
  command = plan
  variables {
    master_coordinator = "c9"
  }
  expect_failures = [output.yaml]
}

run "a_durability_that_tako_does_not_know_is_refused" {
  command = plan
  variables {
    settings = { durability = "maybe" }
  }
  expect_failures = [var.settings]
}
