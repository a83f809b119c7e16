# Names, budgets, shares and costs; what is refused.

variables {
  buckets = {
    b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "z-a" } } }
    b2 = { instance_type = "i4g.large", nodes = { n2 = { zone = "z-b" } } }
    b3 = { instance_type = "i4g.large", nodes = { n3 = { zone = "z-c" } } }
  }
  coordinators    = { c1 = { zone = "z-a" } }
  buckets_per_key = 3
  partitions      = 32
  cluster         = "shop"
  load            = { writes_per_second = 100, bytes_per_second = 0, cold_reads_per_second = 0, stored_bytes = 1000000000 }
}

run "members_have_names_of_the_private_zone" {
  command = plan
  assert {
    condition     = output.nodes["n2"] == { bucket = "b2", host = "n2.shop.internal", instance_type = "i4g.large", zone = "z-b" }
    error_message = jsonencode(output.nodes["n2"])
  }
  assert {
    condition     = output.coordinators["c1"].host == "c1.shop.internal"
    error_message = output.coordinators["c1"].host
  }
  assert {
    condition     = output.replicas == { min = 3, max = 3 } && output.architecture == "arm64"
    error_message = jsonencode(output.replicas)
  }
}

run "budgets_leave_memory_and_disk_free" {
  command = plan
  assert {
    condition     = output.budgets.cache == { records = "4915MiB", memory = "2457MiB", disk = "267791MiB" }
    error_message = jsonencode(output.budgets)
  }
  assert {
    # As large as the memory, which is less than a quarter of the disk and the limit.
    condition     = output.budgets.journal == { memory = "1638MiB", disk = "16384MiB" }
    error_message = jsonencode(output.budgets)
  }
}

run "the_smallest_type_decides" {
  command = plan
  variables {
    buckets = {
      b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "z-a" } } }
      b2 = { instance_type = "c6gd.medium", nodes = { n2 = { zone = "z-b" } } }
      b3 = { instance_type = "im4gn.large", nodes = { n3 = { zone = "z-c" } } }
    }
  }
  assert {
    condition     = output.budgets.journal == { memory = "204MiB", disk = "2048MiB" }
    error_message = jsonencode(output.budgets)
  }
  assert {
    condition     = output.budgets.cache == { records = "614MiB", memory = "307MiB", disk = "33759MiB" }
    error_message = jsonencode(output.budgets)
  }
}

# The figures of docs/operations.md, "Requests and their price".
run "steps_of_32_partitions_each_10_s_cost_340_dollars" {
  command = plan
  assert {
    condition     = output.dollars_per_month.store_requests == 340 && output.dollars_per_month.store_bytes == 1
    error_message = jsonencode(output.dollars_per_month)
  }
  assert {
    condition     = output.dollars_per_month.nodes == ceil(3 * 720 * 0.1544)
    error_message = jsonencode(output.dollars_per_month)
  }
}

run "steps_of_128_partitions_each_minute_cost_230_dollars" {
  command = plan
  variables {
    partitions                = 128
    snapshot_interval_seconds = 60
  }
  assert {
    condition     = abs(output.dollars_per_month.store_requests - 230) <= 3
    error_message = jsonencode(output.dollars_per_month)
  }
}

run "a_write_each_second_costs_93_dollars" {
  command = plan
  variables {
    load = { writes_per_second = 1, bytes_per_second = 0, cold_reads_per_second = 0, stored_bytes = 0 }
  }
  assert {
    condition     = abs(output.dollars_per_month.store_requests - 93) <= 2
    error_message = jsonencode(output.dollars_per_month)
  }
}

run "without_writes_only_the_coordinator_costs" {
  command = plan
  variables {
    load = { writes_per_second = 0, bytes_per_second = 0, cold_reads_per_second = 0, stored_bytes = 0 }
  }
  assert {
    condition     = output.dollars_per_month.store_requests == 1 && output.outage_seconds == null
    error_message = jsonencode(output.dollars_per_month)
  }
}

run "weights_share_out_the_partitions" {
  command = plan
  variables {
    buckets_per_key = 1
    partitions      = 64
    buckets = {
      b1 = { instance_type = "i4g.large", weight = 2, nodes = { n1 = { zone = "z-a" }, n2 = { zone = "z-b" } } }
      b2 = { instance_type = "i4g.large", nodes = { n3 = { zone = "z-a" } } }
      b3 = { instance_type = "i4g.large", nodes = { n4 = { zone = "z-c" } } }
    }
  }
  assert {
    condition     = output.shares == { b1 = 32, b2 = 16, b3 = 16 } && output.replicas == { min = 1, max = 2 }
    error_message = jsonencode([output.shares, output.replicas])
  }
}

run "many_buckets_are_advised_more_partitions" {
  command = plan
  variables {
    buckets_per_key = 1
    buckets = {
      for i in range(1, 21) : "b${i}" => { instance_type = "i4g.large", nodes = { "n${i}" = { zone = "z-a" } } }
    }
  }
  assert {
    condition     = output.partitions_advised == 256
    error_message = tostring(output.partitions_advised)
  }
}

run "a_type_that_is_not_known_is_refused" {
  command = plan
  variables {
    buckets         = { b1 = { instance_type = "t4g.large", nodes = { n1 = { zone = "z-a" } } } }
    buckets_per_key = 1
  }
  expect_failures = [var.buckets]
}

run "two_architectures_are_refused" {
  command = plan
  variables {
    buckets = {
      b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "z-a" } } }
      b2 = { instance_type = "i4i.large", nodes = { n2 = { zone = "z-b" } } }
      b3 = { instance_type = "i4g.large", nodes = { n3 = { zone = "z-c" } } }
    }
  }
  expect_failures = [var.buckets]
}

run "a_node_in_two_buckets_is_refused" {
  command = plan
  variables {
    buckets = {
      b1 = { instance_type = "i4g.large", nodes = { n1 = { zone = "z-a" } } }
      b2 = { instance_type = "i4g.large", nodes = { n1 = { zone = "z-b" } } }
      b3 = { instance_type = "i4g.large", nodes = { n3 = { zone = "z-c" } } }
    }
  }
  expect_failures = [var.buckets]
}

run "partitions_that_are_no_power_of_two_are_refused" {
  command = plan
  variables {
    partitions = 48
  }
  expect_failures = [var.partitions]
}

run "more_buckets_per_key_than_buckets_are_refused" {
  command = plan
  variables {
    buckets_per_key = 4
  }
  expect_failures = [var.buckets_per_key]
}

run "a_name_that_is_no_dns_label_is_refused" {
  command = plan
  variables {
    cluster = "Shop_1"
  }
  expect_failures = [var.cluster]
}
