# The coordinators: small instances that publish the configuration.
#
# Owns: an instance, its address and its DNS name per coordinator. Their folder is on the encrypted root volume: it
# survives a stop, and when it is lost the store and the other coordinators have what was in it.

module "boot" {
  source   = "../boot"
  for_each = var.coordinators

  role   = "coordinator"
  id     = each.key
  region = var.region
  binary = merge(var.release, { name = "tako" })
  command = [
    "/usr/local/bin/tako", "--log-format", "json", "coordinator",
    "--id", each.key,
    "--config", "/var/lib/tako/cluster.yaml",
    "--store", var.store_url,
    "--var", "/var/lib/tako",
    "--tls", "/etc/tako/tls",
  ]
  secrets       = { tls = var.secret_arns.tls }
  environment   = var.environment
  configuration = var.configuration
  peers         = [for id, other in var.coordinators : "${other.host}:${var.port}" if id != each.key]
}

# Made before the instance and kept when it is replaced: the address stays, so nobody has to be told,
# and the name is there before the first member asks for it (a "no such name" is remembered for long).
resource "aws_network_interface" "coordinator" {
  for_each = var.coordinators

  subnet_id       = var.subnets[each.value.zone]
  security_groups = [var.security_group]
  description     = "Tako coordinator ${each.key} of ${var.cluster}"
  tags            = { Name = "${var.cluster}-${each.key}" }
}

resource "aws_instance" "coordinator" {
  for_each = var.coordinators

  ami                         = var.ami
  instance_type               = var.instance_type
  iam_instance_profile        = var.instance_profile
  ebs_optimized               = true
  monitoring                  = var.detailed_monitoring
  user_data_base64            = module.boot[each.key].base64
  user_data_replace_on_change = false
  tags                        = { Name = "${var.cluster}-${each.key}", TakoRole = "coordinator", TakoId = each.key }

  network_interface {
    network_interface_id = aws_network_interface.coordinator[each.key].id
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
    # A new release, image or configuration is no reason to replace all at once: it is taken when an
    # operator replaces one (docs/terraform.md).
    ignore_changes = [ami, user_data, user_data_base64]
  }

  depends_on = [aws_route53_record.coordinator]
}

resource "aws_route53_record" "coordinator" {
  for_each = var.coordinators

  zone_id = var.dns_zone_id
  name    = each.value.host
  type    = "A"
  ttl     = 60
  records = [aws_network_interface.coordinator[each.key].private_ip]
}

output "instances" {
  description = "Instance ids by coordinator."
  value       = { for id, instance in aws_instance.coordinator : id => instance.id }
}

output "user_data" {
  description = "The user data by coordinator, as text."
  value       = { for id, boot in module.boot : id => boot.text }
}
