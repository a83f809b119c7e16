# The proxies: any number of equal instances behind a network load balancer.
#
# Owns: the launch template, the autoscaling group, the load balancer with its listeners and health
# checks. The load balancer passes TLS through: proxies have the certificate, so that what clients
# say is read by nobody between.

locals {
  listeners = var.memcached ? {
    http      = { port = var.listener_ports.http, target = var.ports.http }
    memcached = { port = var.listener_ports.memcached, target = var.ports.memcached }
    } : {
    http = { port = var.listener_ports.http, target = var.ports.http }
  }
}

module "boot" {
  source = "../boot"

  role   = "proxy"
  id     = "of ${var.cluster}"
  region = var.region
  binary = merge(var.release, { name = "tako" })
  command = concat(
    # Proxies come and go, so the instance's id, which boot.py writes down, is theirs.
    ["/usr/local/bin/tako", "--log-format", "json", "proxy", "--id", "p-$${TAKO_INSTANCE}"],
    flatten([for address in var.coordinators : ["--coordinator", address]]),
    ["--host", "0.0.0.0", "--port", tostring(var.ports.http)],
    var.memcached ? ["--memcached-port", tostring(var.ports.memcached)] : [],
    var.memcached && var.memcached_plain ? ["--memcached-plain"] : [],
    [
      "--var", "/var/lib/tako",
      "--tls", "/etc/tako/tls",
      "--tokens", "/etc/tako/tokens.yaml",
    ],
  )
  secrets     = { tls = var.secret_arns.tls, tokens = var.secret_arns.tokens }
  environment = var.environment
}

resource "aws_launch_template" "proxy" {
  name                   = "${var.cluster}-proxy"
  description            = "Proxies of the Tako cluster ${var.cluster}"
  image_id               = var.ami
  instance_type          = var.instance_type
  update_default_version = true
  user_data              = module.boot.base64

  iam_instance_profile {
    name = var.instance_profile
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [var.security_group]
    delete_on_termination       = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = var.root_device

    ebs {
      encrypted             = "true"
      kms_key_id            = var.kms_key_arn
      volume_type           = "gp3"
      volume_size           = 10
      delete_on_termination = "true"
    }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = "${var.cluster}-proxy" }
  }
}

resource "aws_autoscaling_group" "proxy" {
  name                = "${var.cluster}-proxy"
  min_size            = var.size.min
  max_size            = var.size.max
  vpc_zone_identifier = [for zone in sort(keys(var.subnets)) : var.subnets[zone]]
  target_group_arns   = [for group in aws_lb_target_group.this : group.arn]
  # Not ELB: /readyz is 503 while the cluster has lost a quorum, and then all proxies would be
  # replaced again and again though nothing is wrong with them. The load balancer leaves them out by
  # /readyz; a process that died is started by systemd, an instance that died is replaced here.
  health_check_type         = "EC2"
  health_check_grace_period = 60
  max_instance_lifetime     = 0
  # An apply must not wait for secrets that an operator has yet to put.
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.proxy.id
    version = aws_launch_template.proxy.latest_version
  }

  # A new release or image: one after the other, each only when the last is healthy.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 90
      max_healthy_percentage = 110
      instance_warmup        = 60
    }
  }

  tag {
    key                 = "Name"
    value               = "${var.cluster}-proxy"
    propagate_at_launch = true
  }

  tag {
    key                 = "TakoRole"
    value               = "proxy"
    propagate_at_launch = true
  }

  tag {
    key                 = "TakoCluster"
    value               = var.cluster
    propagate_at_launch = true
  }
}

resource "aws_autoscaling_policy" "cpu" {
  name                   = "${var.cluster}-proxy-cpu"
  autoscaling_group_name = aws_autoscaling_group.proxy.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.cpu_percent

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_lb" "this" {
  name               = "${var.cluster}-tako"
  load_balancer_type = "network"
  internal           = var.internal
  subnets            = [for zone in sort(keys(var.load_balancer_subnets)) : var.load_balancer_subnets[zone]]
  security_groups    = [var.load_balancer_security_group]

  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
}

resource "aws_lb_target_group" "this" {
  for_each = local.listeners

  name                 = "${var.cluster}-${each.key}"
  vpc_id               = var.vpc_id
  protocol             = "TCP"
  port                 = each.value.target
  deregistration_delay = "30"
  # Long-lived connections of a proxy that is leaving are ended, not left hanging.
  connection_termination = true

  # For both protocols the HTTP port says whether every partition has its quorums.
  health_check {
    protocol            = "HTTPS"
    port                = tostring(var.ports.http)
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "this" {
  for_each = local.listeners

  load_balancer_arn = aws_lb.this.arn
  protocol          = "TCP"
  port              = each.value.port

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}

# The name that the cluster's certificate covers, for clients inside the VPC.
resource "aws_route53_record" "this" {
  zone_id = var.dns_zone_id
  name    = var.host
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}

output "load_balancer" {
  description = "DNS name of the load balancer, as AWS calls it."
  value       = aws_lb.this.dns_name
}

output "group" {
  description = "Name of the autoscaling group."
  value       = aws_autoscaling_group.proxy.name
}

output "user_data" {
  description = "The user data, as text."
  value       = module.boot.text
}
