# A whole cluster.
#
# Owns: how the modules fit together. What a cluster is made of is decided by sizing and configuration
# (no provider), where it lies by network, security, store, secrets and iam, and what runs by
# coordinators, nodes, proxies and collector.

data "aws_region" "current" {}

# Amazon Linux 2023: boot.py needs no package that it lacks, and its glibc is what releases are for.
data "aws_ssm_parameter" "ami" {
  count = var.ami == null ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${module.sizing.architecture}"
}

locals {
  # `name` of the data source is called `region` since version 6 of the provider; `id` in both.
  region = data.aws_region.current.id
  zones = distinct(concat(
    [for node in module.sizing.nodes : node.zone],
    [for coordinator in module.sizing.coordinators : coordinator.zone],
    var.more_zones,
  ))
  ami       = var.ami == null ? nonsensitive(data.aws_ssm_parameter.ami[0].value) : var.ami
  ports     = { http = 5711, rpc = 4711, memcached = 11211, coordinator = 17400 }
  listeners = { http = 443, memcached = 11211 }
  store_url = "s3://${module.store.bucket}/${var.prefix}"

  coordinator_addresses = [
    for id, coordinator in module.sizing.coordinators : "${coordinator.host}:${local.ports.coordinator}"
  ]
  release_bucket_arns = distinct([
    for url in concat([var.release.url], var.collector == null ? [] : [var.collector.release.url]) :
    "arn:aws:s3:::${split("/", trimprefix(url, "s3://"))[0]}"
  ])

  # Read by the process when it can trace; the address answers where there is a collector.
  environment = var.collector == null ? {} : {
    OTEL_EXPORTER_OTLP_ENDPOINT = "http://collector.${module.sizing.domain}:4318"
    OTEL_SERVICE_NAME           = "tako"
  }
  kms_key_arn  = var.kms_key == null ? null : var.kms_key.arn
  kms_key_arns = [for key in [var.kms_key, var.release_kms_key] : key.arn if key != null]
}

module "sizing" {
  source = "../sizing"

  cluster                   = var.cluster
  buckets                   = var.buckets
  coordinators              = var.coordinators
  buckets_per_key           = var.buckets_per_key
  partitions                = var.partitions
  snapshot_interval_seconds = var.snapshot_interval_seconds
  more_instance_types       = var.more_instance_types
  load                      = var.load
}

module "configuration" {
  source = "../configuration"

  deployment         = var.deployment
  master_coordinator = sort(keys(var.coordinators))[0]
  coordinators       = module.sizing.coordinators
  nodes              = module.sizing.nodes
  weights            = { for bucket, group in var.buckets : bucket => group.weight }
  buckets_per_key    = var.buckets_per_key
  partitions         = var.partitions
  store_url          = local.store_url
  region             = local.region
  budgets            = module.sizing.budgets
  ports              = local.ports
  settings           = merge(var.settings, { snapshot_interval = "${var.snapshot_interval_seconds}s" })
}

module "store" {
  source = "../store"

  bucket            = var.bucket
  kms_key_arn       = local.kms_key_arn
  noncurrent_days   = var.noncurrent_days
  access_log_bucket = var.access_log_bucket
}

module "network" {
  source = "../network"

  cluster = var.cluster
  region  = local.region
  domain  = module.sizing.domain
  cidr    = var.cidr
  zones   = local.zones
  bucket_arns = concat(
    [module.store.arn],
    local.release_bucket_arns,
    # Packages of Amazon Linux, for updates by hand.
    ["arn:aws:s3:::al2023-repos-${local.region}-de612dc2"],
  )
  more_endpoints = distinct(concat(
    var.session_manager ? ["ssm", "ssmmessages"] : [],
    var.collector == null ? [] : ["ec2"],
    length(local.kms_key_arns) == 0 ? [] : ["kms"],
  ))
  public_subnets = !var.internal
  nat            = var.nat
  flow_log_days  = var.flow_log_days
  kms_key_arn    = local.kms_key_arn
}

module "security" {
  source = "../security"

  cluster                = var.cluster
  vpc_id                 = module.network.vpc_id
  vpc_cidr               = var.cidr
  s3_prefix_list_id      = module.network.s3_prefix_list_id
  ports                  = local.ports
  listener_ports         = local.listeners
  memcached              = var.memcached
  client_cidrs           = coalesce(var.client_cidrs, [var.cidr])
  operator_cidrs         = var.operator_cidrs
  collector              = var.collector != null
  collector_egress_cidrs = var.collector == null ? [] : var.collector.egress_cidrs
}

module "secrets" {
  source = "../secrets"

  cluster     = var.cluster
  collector   = var.collector != null
  given       = var.secret_arns
  kms_key_arn = local.kms_key_arn
}

module "iam" {
  source = "../iam"

  cluster    = var.cluster
  region     = local.region
  bucket_arn = module.store.arn
  prefix     = var.prefix
  release_urls = merge(
    { tako = var.release.url },
    var.collector == null ? {} : { collector = var.collector.release.url },
  )
  secret_arns          = module.secrets.arns
  kms_key_arns         = local.kms_key_arns
  collector            = var.collector != null
  more_policy_arns     = var.session_manager ? ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"] : []
  permissions_boundary = var.permissions_boundary
}

module "coordinators" {
  source = "../coordinators"

  cluster             = var.cluster
  region              = local.region
  subnets             = module.network.private_subnets
  security_group      = module.security.groups["coordinator"]
  instance_profile    = module.iam.profiles["coordinator"]
  ami                 = local.ami
  release             = var.release
  secret_arns         = module.secrets.arns
  kms_key_arn         = local.kms_key_arn
  coordinators        = module.sizing.coordinators
  instance_type       = var.coordinator_instance_type
  dns_zone_id         = module.network.dns_zone_id
  store_url           = local.store_url
  configuration       = module.configuration.yaml
  port                = local.ports.coordinator
  environment         = local.environment
  detailed_monitoring = var.detailed_monitoring
}

module "nodes" {
  source = "../nodes"

  cluster             = var.cluster
  region              = local.region
  subnets             = module.network.private_subnets
  security_group      = module.security.groups["node"]
  instance_profile    = module.iam.profiles["node"]
  ami                 = local.ami
  release             = var.release
  secret_arns         = module.secrets.arns
  kms_key_arn         = local.kms_key_arn
  nodes               = module.sizing.nodes
  dns_zone_id         = module.network.dns_zone_id
  store_url           = local.store_url
  coordinators        = local.coordinator_addresses
  drain_seconds       = var.drain_seconds
  environment         = local.environment
  detailed_monitoring = var.detailed_monitoring
}

module "proxies" {
  source = "../proxies"

  cluster                      = var.cluster
  region                       = local.region
  subnets                      = module.network.private_subnets
  security_group               = module.security.groups["proxy"]
  instance_profile             = module.iam.profiles["proxy"]
  ami                          = local.ami
  release                      = var.release
  secret_arns                  = module.secrets.arns
  kms_key_arn                  = local.kms_key_arn
  vpc_id                       = module.network.vpc_id
  coordinators                 = local.coordinator_addresses
  instance_type                = var.proxy_instance_type
  size                         = var.proxies
  ports                        = local.ports
  listener_ports               = local.listeners
  memcached                    = var.memcached
  memcached_plain              = var.memcached_plain
  internal                     = var.internal
  load_balancer_subnets        = var.internal ? module.network.private_subnets : module.network.public_subnets
  load_balancer_security_group = module.security.groups["load_balancer"]
  deletion_protection          = var.deletion_protection
  dns_zone_id                  = module.network.dns_zone_id
  host                         = "proxy.${module.sizing.domain}"
  environment                  = local.environment
}

module "collector" {
  source = "../collector"
  count  = var.collector == null ? 0 : 1

  cluster          = var.cluster
  region           = local.region
  subnets          = module.network.private_subnets
  security_group   = module.security.groups["collector"]
  instance_profile = module.iam.profiles["collector"]
  ami              = local.ami
  release          = var.collector.release
  secret_arns      = module.secrets.arns
  kms_key_arn      = local.kms_key_arn
  domain           = module.sizing.domain
  dns_zone_id      = module.network.dns_zone_id
  host             = "collector.${module.sizing.domain}"
  nodes            = module.sizing.nodes
  http_port        = local.ports.http
  instance_type    = var.collector.instance_type
  endpoint         = var.collector.endpoint

  detailed_monitoring = var.detailed_monitoring
}

# A warning, not an error: the number cannot be changed while there are data.
check "partitions" {
  assert {
    condition     = var.partitions >= module.sizing.partitions_advised
    error_message = "With ${var.partitions} partitions shares of ${length(var.buckets)} buckets are uneven; ${module.sizing.partitions_advised} would do. Before the first start only."
  }
}

check "zones" {
  assert {
    condition     = length(local.zones) >= 3 || length(module.sizing.nodes) < 3
    error_message = "All nodes lie in ${length(local.zones)} zones: with one of them a majority may be lost."
  }
}
