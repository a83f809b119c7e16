# Members are not on the internet unless that is asked for.

mock_provider "aws" {}

variables {
  cluster     = "shop"
  region      = "r"
  domain      = "shop.internal"
  cidr        = "10.42.0.0/16"
  zones       = ["r-b", "r-a", "r-c"]
  bucket_arns = ["arn:aws:s3:::data", "arn:aws:s3:::rel"]
}

run "private_by_default" {
  assert {
    condition     = length(aws_internet_gateway.this) == 0 && length(aws_nat_gateway.this) == 0 && length(output.public_subnets) == 0
    error_message = "there is a way to the internet"
  }
  assert {
    condition     = { for zone, subnet in aws_subnet.private : zone => subnet.cidr_block } == { r-a = "10.42.0.0/20", r-b = "10.42.16.0/20", r-c = "10.42.32.0/20" }
    error_message = jsonencode({ for zone, subnet in aws_subnet.private : zone => subnet.cidr_block })
  }
  assert {
    condition     = keys(aws_vpc_endpoint.interface) == ["secretsmanager"]
    error_message = join(", ", keys(aws_vpc_endpoint.interface))
  }
  assert {
    condition     = jsondecode(aws_vpc_endpoint.s3.policy).Statement[0].Resource == ["arn:aws:s3:::data", "arn:aws:s3:::data/*", "arn:aws:s3:::rel", "arn:aws:s3:::rel/*"]
    error_message = aws_vpc_endpoint.s3.policy
  }
}

run "nat_in_each_zone_where_asked_for" {
  variables {
    nat           = true
    flow_log_days = 30
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.nat) == 3 && aws_subnet.public["r-a"].cidr_block == "10.42.128.0/20"
    error_message = "a zone depends on another"
  }
  assert {
    condition     = length(aws_flow_log.this) == 1 && alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "no flow log"
  }
}
