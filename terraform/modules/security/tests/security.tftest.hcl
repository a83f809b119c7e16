# Who may talk to whom.

mock_provider "aws" {}

variables {
  cluster           = "shop"
  vpc_id            = "vpc-1"
  vpc_cidr          = "10.0.0.0/16"
  s3_prefix_list_id = "pl-1"
  ports             = { http = 5711, rpc = 4711, memcached = 11211, coordinator = 17400 }
  listener_ports    = { http = 443, memcached = 11211 }
  memcached         = false
  client_cidrs      = ["10.0.0.0/8"]
  operator_cidrs    = ["10.9.0.0/24"]
}

run "only_members_and_the_operator_reach_nodes_and_coordinators" {
  assert {
    condition = toset(keys(aws_vpc_security_group_ingress_rule.between)) == toset([
      "node-node-rpc", "coordinator-node-rpc", "coordinator-node-http", "proxy-node-rpc",
      "node-coordinator-coordinator", "coordinator-coordinator-coordinator", "proxy-coordinator-coordinator",
      "load_balancer-proxy-http",
    ])
    error_message = join(", ", keys(aws_vpc_security_group_ingress_rule.between))
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.operator : rule.cidr_ipv4 == "10.9.0.0/24"])
    error_message = "orders come from elsewhere, too"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.clients : rule.security_group_id == aws_security_group.this["load_balancer"].id])
    error_message = "clients reach something else than the load balancer"
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.clients) == ["http-10.0.0.0/8"]
    error_message = "memcached is open though it is not served"
  }
}

run "nobody_is_let_out_to_everywhere" {
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.endpoints : rule.cidr_ipv4 == "10.0.0.0/16"]) && length(aws_vpc_security_group_egress_rule.collector) == 0
    error_message = "an instance reaches the internet"
  }
}

run "a_collector_may_ask_and_be_told" {
  variables {
    collector = true
    memcached = true
  }
  assert {
    condition = length(setsubtract(
      ["collector-node-http", "collector-proxy-http", "node-collector-otlp", "proxy-collector-otlp", "load_balancer-proxy-memcached"],
      keys(aws_vpc_security_group_ingress_rule.between),
    )) == 0
    error_message = join(", ", keys(aws_vpc_security_group_ingress_rule.between))
  }
}

run "orders_from_everywhere_are_refused" {
  command = plan
  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.operator_cidrs]
}
