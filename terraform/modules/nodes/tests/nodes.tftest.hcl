# Nodes keep their machine, name and address when other things change.

mock_provider "aws" {}

variables {
  cluster          = "shop"
  region           = "r"
  subnets          = { z-a = "subnet-a", z-b = "subnet-b" }
  security_group   = "sg-1"
  instance_profile = "shop-node"
  ami              = "ami-1"
  release          = { url = "s3://rel/tako-1", sha256 = "0000000000000000000000000000000000000000000000000000000000000001" }
  secret_arns      = { tls = "arn:tls", tokens = "arn:tokens", scrape_token = null }
  nodes = {
    n1 = { bucket = "b1", host = "n1.s.internal", zone = "z-a", instance_type = "i4g.large" }
    n2 = { bucket = "b2", host = "n2.s.internal", zone = "z-b", instance_type = "i4g.large" }
  }
  dns_zone_id  = "Z1"
  store_url    = "s3://b/p"
  coordinators = ["c1.s.internal:17400"]
}

run "made" {
  assert {
    condition     = alltrue([for node in aws_instance.node : one(node.metadata_options).http_tokens == "required" && one(node.root_block_device).encrypted])
    error_message = "version 1 of the metadata service, or a disk in the clear"
  }
  assert {
    condition     = aws_network_interface.node["n2"].subnet_id == "subnet-b" && aws_route53_record.node["n2"].records == toset([aws_network_interface.node["n2"].private_ip])
    error_message = "another address"
  }
  assert {
    condition     = aws_instance.node["n1"].user_data_base64 == module.boot["n1"].base64
    error_message = "other user data"
  }
  assert {
    condition     = strcontains(output.user_data["n1"], "--drain-timeout 30s --tls /etc/tako/tls --tokens /etc/tako/tokens.yaml")
    error_message = output.user_data["n1"]
  }
}

run "a_new_release_and_image_touch_no_node_that_runs" {
  variables {
    ami     = "ami-2"
    release = { url = "s3://rel/tako-2", sha256 = "0000000000000000000000000000000000000000000000000000000000000002" }
  }
  assert {
    condition     = output.instances == run.made.instances
    error_message = "nodes were replaced"
  }
  assert {
    condition     = alltrue([for id, node in aws_instance.node : node.ami == "ami-1" && node.user_data_base64 != module.boot[id].base64])
    error_message = "nodes were told"
  }
}

run "a_node_more_touches_no_other" {
  variables {
    nodes = {
      n1 = { bucket = "b1", host = "n1.s.internal", zone = "z-a", instance_type = "i4g.large" }
      n0 = { bucket = "b1", host = "n0.s.internal", zone = "z-b", instance_type = "i4g.xlarge" }
      n2 = { bucket = "b2", host = "n2.s.internal", zone = "z-b", instance_type = "i4g.large" }
    }
  }
  assert {
    condition     = length(output.instances) == 3 && { for id in ["n1", "n2"] : id => output.instances[id] } == run.made.instances
    error_message = "other nodes were replaced"
  }
}
