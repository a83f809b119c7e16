# A cluster for production: four buckets of three nodes over three zones, three coordinators, proxies
# that grow with the load, memcached, backups, one key for all that is encrypted, telemetry.
#
# Owns: the layout and the key. Each bucket has a node in each zone, and each key lies on one bucket:
# three replicas, a zone each. The buckets share the keys out, so a fifth bucket adds a fourth again
# of the capacity.

locals {
  a = "${var.region}a"
  b = "${var.region}b"
  c = "${var.region}c"
}

data "aws_caller_identity" "current" {}

resource "aws_kms_key" "tako" {
  description             = "Tako cluster ${var.cluster}: bucket, volumes, secrets, flow logs"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AccountDecides"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        # Volumes of proxies are made by autoscaling, in its own name.
        Sid    = "AutoscalingMakesVolumes"
        Effect = "Allow"
        Principal = {
          AWS = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
        }
        Action   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey", "kms:CreateGrant"]
        Resource = "*"
      },
      {
        Sid       = "FlowLogs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
        Resource  = "*"
        Condition = {
          ArnEquals = {
            "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:/tako/${var.cluster}/flow"
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "tako" {
  name          = "alias/tako-${var.cluster}"
  target_key_id = aws_kms_key.tako.key_id
}

module "tako" {
  source = "../../modules/tako"

  cluster    = var.cluster
  release    = var.release
  bucket     = var.bucket
  deployment = var.deployment

  buckets = {
    b1 = {
      instance_type = "i4g.large"
      nodes         = { n1 = { zone = local.a }, n2 = { zone = local.b }, n3 = { zone = local.c } }
    }
    b2 = {
      instance_type = "i4g.large"
      nodes         = { n4 = { zone = local.a }, n5 = { zone = local.b }, n6 = { zone = local.c } }
    }
    b3 = {
      instance_type = "i4g.large"
      nodes         = { n7 = { zone = local.a }, n8 = { zone = local.b }, n9 = { zone = local.c } }
    }
    b4 = {
      instance_type = "i4g.large"
      nodes         = { n10 = { zone = local.a }, n11 = { zone = local.b }, n12 = { zone = local.c } }
    }
  }
  buckets_per_key = 1
  partitions      = 64
  coordinators    = { c1 = { zone = local.a }, c2 = { zone = local.b }, c3 = { zone = local.c } }
  proxies         = { min = 3, max = 12 }

  proxy_instance_type = "c7g.large"
  memcached           = true
  drain_seconds       = 60
  settings = {
    backups = [{ every = "1h", keep = 24 }, { every = "1d", keep = 7 }]
  }

  client_cidrs        = var.client_cidrs
  operator_cidrs      = var.operator_cidrs
  session_manager     = true
  nat                 = true
  flow_log_days       = 365
  detailed_monitoring = true

  kms_key           = { arn = aws_kms_key.tako.arn }
  noncurrent_days   = 7
  access_log_bucket = var.access_log_bucket

  collector = {
    release      = var.collector_release
    endpoint     = var.telemetry_endpoint
    egress_cidrs = ["0.0.0.0/0"]
  }
  load = {
    writes_per_second = 5000
    bytes_per_second  = 5000000
    stored_bytes      = 2000000000000
  }
}
