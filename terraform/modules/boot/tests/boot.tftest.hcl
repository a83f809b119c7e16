# Which files and units each kind of instance gets. What they do is tried by tests/boot_test.py.

variables {
  role    = "node"
  id      = "n1"
  region  = "r"
  binary  = { name = "tako", url = "s3://b/tako", sha256 = "00000000000000000000000000000000000000000000000000000000000000ff" }
  command = ["/usr/local/bin/tako", "node", "--id", "n1"]
  secrets = { tls = "arn:tls", tokens = "arn:tokens" }
  disk    = true
}

run "a_node_has_its_disk_before_it_starts" {
  command = plan
  assert {
    condition = toset([for file in yamldecode(output.text).write_files : file.path]) == toset([
      "/etc/tako/boot.json",
      "/etc/systemd/system/tako-boot.service",
      "/etc/systemd/system/tako-disk.service",
      "/etc/systemd/system/tako-node.service",
      "/usr/local/lib/tako/boot.py",
      "/usr/local/lib/tako/disk.sh",
    ])
    error_message = join(", ", [for file in yamldecode(output.text).write_files : file.path])
  }
  assert {
    condition     = strcontains(output.text, "Requires=tako-disk.service") && strcontains(output.text, "ExecStart=/usr/local/bin/tako node --id n1")
    error_message = output.text
  }
}

run "a_proxy_has_no_disk_and_no_configuration" {
  command = plan
  variables {
    role = "proxy"
    disk = false
  }
  assert {
    condition = toset([for file in yamldecode(output.text).write_files : file.path]) == toset([
      "/etc/tako/boot.json",
      "/etc/systemd/system/tako-boot.service",
      "/etc/systemd/system/tako-proxy.service",
      "/usr/local/lib/tako/boot.py",
    ])
    error_message = join(", ", [for file in yamldecode(output.text).write_files : file.path])
  }
}

run "a_coordinator_knows_the_others" {
  command = plan
  variables {
    role          = "coordinator"
    disk          = false
    configuration = "partitions: 1\n"
    peers         = ["c2:17400"]
    secrets       = { tls = "arn:tls" }
  }
  assert {
    condition = [
      for file in yamldecode(output.text).write_files : jsondecode(file.content) if file.path == "/etc/tako/boot.json"
    ][0].coordinator == { configuration = "/var/lib/tako/cluster.yaml", peers = ["c2:17400"] }
    error_message = output.text
  }
  assert {
    # Tokens are of no use to a coordinator, so it does not get them.
    condition     = !strcontains(output.text, "arn:tokens")
    error_message = output.text
  }
}

run "user_data_fit" {
  command = plan
  assert {
    condition     = length(output.base64) * 3 / 4 < 12000
    error_message = "${length(output.base64)} characters"
  }
}

run "a_word_that_systemd_would_split_is_refused" {
  command = plan
  variables {
    command = ["/usr/local/bin/tako", "node; rm -rf"]
  }
  expect_failures = [var.command]
}

run "a_release_without_a_digest_is_refused" {
  command = plan
  variables {
    binary = { name = "tako", url = "https://b/tako", sha256 = "latest" }
  }
  expect_failures = [var.binary]
}
