# Proxies: health, listeners, and what a new release does.

mock_provider "aws" {}

variables {
  cluster                      = "shop"
  region                       = "r"
  subnets                      = { z-a = "subnet-a", z-b = "subnet-b" }
  security_group               = "sg-1"
  instance_profile             = "shop-proxy"
  ami                          = "ami-1"
  release                      = { url = "s3://rel/tako-1", sha256 = "0000000000000000000000000000000000000000000000000000000000000001" }
  secret_arns                  = { tls = "arn:tls", tokens = "arn:tokens", scrape_token = null }
  vpc_id                       = "vpc-1"
  coordinators                 = ["c1.s.internal:17400", "c2.s.internal:17400"]
  instance_type                = "c7g.medium"
  size                         = { min = 2, max = 4 }
  ports                        = { http = 5711, rpc = 4711, memcached = 11211, coordinator = 17400 }
  listener_ports               = { http = 443, memcached = 11211 }
  memcached                    = false
  memcached_plain              = false
  internal                     = true
  load_balancer_subnets        = { z-a = "subnet-a", z-b = "subnet-b" }
  load_balancer_security_group = "sg-2"
  dns_zone_id                  = "Z1"
  host                         = "proxy.s.internal"
}

run "the_load_balancer_asks_readyz_and_the_group_does_not" {
  assert {
    condition     = one(aws_lb_target_group.this["http"].health_check).path == "/readyz" && one(aws_lb_target_group.this["http"].health_check).protocol == "HTTPS"
    error_message = "another health check"
  }
  assert {
    # Else a cluster without a quorum would lose its proxies, too.
    condition     = aws_autoscaling_group.proxy.health_check_type == "EC2"
    error_message = aws_autoscaling_group.proxy.health_check_type
  }
  assert {
    condition     = keys(aws_lb_listener.this) == ["http"] && !strcontains(output.user_data, "--memcached-port")
    error_message = "memcached is served"
  }
  assert {
    condition     = one(aws_launch_template.proxy.metadata_options).http_tokens == "required" && one(aws_launch_template.proxy.network_interfaces).associate_public_ip_address == "false"
    error_message = "version 1 of the metadata service, or a public address"
  }
}

run "memcached_has_a_listener_and_a_port" {
  variables {
    memcached       = true
    memcached_plain = true
  }
  assert {
    condition     = keys(aws_lb_listener.this) == ["http", "memcached"] && strcontains(output.user_data, "--memcached-port 11211 --memcached-plain")
    error_message = output.user_data
  }
}

run "a_new_release_is_rolled_out" {
  variables {
    release = { url = "s3://rel/tako-2", sha256 = "0000000000000000000000000000000000000000000000000000000000000002" }
  }
  assert {
    condition     = aws_launch_template.proxy.user_data == module.boot.base64 && one(aws_autoscaling_group.proxy.instance_refresh).strategy == "Rolling"
    error_message = "proxies stay on the old one"
  }
}
