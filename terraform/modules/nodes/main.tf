# The nodes: an instance each, with NVMe instance storage.
#
# Owns: an instance, its address and its DNS name per node id. No autoscaling group, as a node is somebody: its id
# has a place in the configuration. What is on its NVMe may go with the instance: a replaced node is
# seeded from the store and the other replicas.

module "boot" {
  source   = "../boot"
  for_each = var.nodes

  role   = "node"
  id     = each.key
  region = var.region
  binary = merge(var.release, { name = "tako" })
  disk   = true
  command = concat(
    ["/usr/local/bin/tako", "--log-format", "json", "node", "--id", each.key],
    flatten([for address in var.coordinators : ["--coordinator", address]]),
    [
      "--store", var.store_url,
      "--var", "/var/lib/tako",
      "--drain-timeout", "${var.drain_seconds}s",
      "--tls", "/etc/tako/tls",
      "--tokens", "/etc/tako/tokens.yaml",
    ],
  )
  secrets      = { tls = var.secret_arns.tls, tokens = var.secret_arns.tokens }
  environment  = var.environment
  stop_seconds = var.drain_seconds + 30
}

# Made before the instance and kept when it is replaced: the address stays, so nobody has to be told,
# and the name is there before the first member asks for it (a "no such name" is remembered for long).
resource "aws_network_interface" "node" {
  for_each = var.nodes

  subnet_id       = var.subnets[each.value.zone]
  security_groups = [var.security_group]
  description     = "Tako node ${each.key} of ${var.cluster}"
  tags            = { Name = "${var.cluster}-${each.key}" }
}

resource "aws_instance" "node" {
  for_each = var.nodes

  ami                         = var.ami
  instance_type               = each.value.instance_type
  iam_instance_profile        = var.instance_profile
  ebs_optimized               = true
  monitoring                  = var.detailed_monitoring
  user_data_base64            = module.boot[each.key].base64
  user_data_replace_on_change = false
  # A shutdown from inside must not take the instance away.
  instance_initiated_shutdown_behavior = "stop"

  tags = {
    Name       = "${var.cluster}-${each.key}"
    TakoRole   = "node"
    TakoId     = each.key
    TakoBucket = each.value.bucket
  }

  network_interface {
    network_interface_id = aws_network_interface.node[each.key].id
    device_index         = 0
  }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # Nothing in a container or behind a proxy on the instance gets the role.
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_type = "gp3"
    volume_size = 10
  }

  lifecycle {
    # A new release or image is no reason to replace all nodes at once: it is taken when an operator
    # replaces one after the other (docs/terraform.md).
    ignore_changes = [ami, user_data, user_data_base64]
  }

  depends_on = [aws_route53_record.node]
}

resource "aws_route53_record" "node" {
  for_each = var.nodes

  zone_id = var.dns_zone_id
  name    = each.value.host
  type    = "A"
  ttl     = 60
  records = [aws_network_interface.node[each.key].private_ip]
}

output "instances" {
  description = "Instance ids by node."
  value       = { for id, instance in aws_instance.node : id => instance.id }
}

output "user_data" {
  description = "The user data by node, as text."
  value       = { for id, boot in module.boot : id => boot.text }
}
