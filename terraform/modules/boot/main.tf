# The user data of an instance: cloud-init that makes it a member of the cluster.
#
# Owns: which files and units an instance gets, and in which order they run: the disk (nodes), then
# secrets and binary (boot.py), then the process. In: the role, its command line, what it may fetch.
# Out: the user data, as text and as EC2 takes it. No secret is in it: user data can be read by
# everybody who may describe the instance. Provider-free.

terraform {
  required_version = ">= 1.9"
}

locals {
  service = "tako-${var.role}"
  files = merge(
    {
      "/etc/tako/boot.json" = {
        mode = "0644"
        content = jsonencode({
          role        = var.role
          region      = var.region
          binary      = var.binary
          secrets     = { for name, arn in var.secrets : name => arn if arn != null }
          environment = var.environment
          coordinator = var.configuration == null ? null : {
            configuration = "/var/lib/tako/cluster.yaml"
            peers         = var.peers
          }
        })
      }
      "/usr/local/lib/tako/boot.py" = {
        mode    = "0755"
        content = file("${path.module}/templates/boot.py")
      }
      "/etc/systemd/system/tako-boot.service" = {
        mode    = "0644"
        content = templatefile("${path.module}/templates/tako-boot.service", { service = local.service })
      }
      "/etc/systemd/system/${local.service}.service" = {
        mode = "0644"
        content = templatefile("${path.module}/templates/tako.service", {
          role         = var.role
          id           = var.id
          command      = join(" ", var.command)
          disk         = var.disk
          stop_seconds = var.stop_seconds
        })
      }
    },
    var.disk ? {
      "/usr/local/lib/tako/disk.sh" = {
        mode    = "0755"
        content = file("${path.module}/templates/disk.sh")
      }
      "/etc/systemd/system/tako-disk.service" = {
        mode    = "0644"
        content = file("${path.module}/templates/tako-disk.service")
      }
    } : {},
    var.configuration == null ? {} : {
      "/etc/tako/cluster.yaml" = { mode = "0644", content = var.configuration }
    },
    { for path, content in var.files : path => { mode = "0644", content = content } },
  )

  cloud_config = {
    # Users first: the units and boot.py give files to it.
    users       = ["default", { name = "tako", system = true, shell = "/usr/sbin/nologin", no_create_home = true }]
    write_files = [for path, file in local.files : { path = path, permissions = file.mode, content = file.content }]
    runcmd = concat(
      [["mkdir", "-p", "/var/lib/tako"], ["chown", "tako:tako", "/var/lib/tako"], ["systemctl", "daemon-reload"]],
      var.disk ? [["systemctl", "enable", "--now", "tako-disk.service"]] : [],
      # Not waited for: secrets may come much later, and cloud-init should end.
      [["systemctl", "enable", "--now", "--no-block", "tako-boot.service", "${local.service}.service"]],
    )
  }
  text = "#cloud-config\n${yamlencode(local.cloud_config)}"
}

output "text" {
  description = "The user data, to be read."
  value       = local.text
}

output "base64" {
  description = "The user data as EC2 takes it: compressed, as 16 KiB are the limit."
  value       = base64gzip(local.text)

  precondition {
    condition     = length(base64gzip(local.text)) * 3 / 4 <= 16384
    error_message = "The user data is larger than the 16 KiB that EC2 takes."
  }
}
