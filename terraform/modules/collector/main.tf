# An OpenTelemetry collector for the cluster.
#
# Owns: one instance that asks nodes and proxies for metrics, takes traces by OTLP, and passes all on
# to one endpoint. The binary (otelcol-contrib: the prometheus receiver is not in every build) is put
# beside Tako's release by the operator. Losing it loses telemetry and nothing else.

module "boot" {
  source = "../boot"

  role    = "collector"
  id      = "of ${var.cluster}"
  region  = var.region
  binary  = merge(var.release, { name = "otelcol" })
  command = ["/usr/local/bin/otelcol", "--config", "/etc/tako/collector.yaml"]
  secrets = { tls = var.secret_arns.tls, scrape_token = var.secret_arns.scrape_token }
  files = {
    "/etc/tako/collector.yaml" = templatefile("${path.module}/templates/collector.yaml", {
      cluster         = var.cluster
      domain          = var.domain
      region          = var.region
      nodes           = { for id, node in var.nodes : id => node.host }
      port            = var.http_port
      endpoint        = var.endpoint
      scrape_interval = var.scrape_interval
    })
  }
}

resource "aws_instance" "collector" {
  ami                         = var.ami
  instance_type               = var.instance_type
  subnet_id                   = var.subnets[sort(keys(var.subnets))[0]]
  vpc_security_group_ids      = [var.security_group]
  iam_instance_profile        = var.instance_profile
  associate_public_ip_address = false
  ebs_optimized               = true
  monitoring                  = var.detailed_monitoring
  user_data_base64            = module.boot.base64
  # It keeps nothing, and its list of nodes is in the user data: a new list is a new instance.
  user_data_replace_on_change = true
  tags                        = { Name = "${var.cluster}-collector", TakoRole = "collector" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_type = "gp3"
    volume_size = 10
  }

  lifecycle {
    ignore_changes = [ami]
  }
}

resource "aws_route53_record" "collector" {
  zone_id = var.dns_zone_id
  name    = var.host
  type    = "A"
  ttl     = 10
  records = [aws_instance.collector.private_ip]
}

output "instance" {
  description = "Its instance id."
  value       = aws_instance.collector.id
}

output "user_data" {
  description = "The user data, as text."
  value       = module.boot.text
}
