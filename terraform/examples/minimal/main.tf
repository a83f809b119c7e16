# The smallest cluster that survives the loss of a zone: three nodes, a coordinator, a proxy.
#
# Owns: the layout; everything else is what module tako has as defaults. For trying it, and for small
# loads. One coordinator is enough, as no request needs it; with one proxy its loss is an outage of
# the minutes that autoscaling takes.

module "tako" {
  source = "../../modules/tako"

  cluster = var.cluster
  release = var.release
  bucket  = var.bucket

  buckets = {
    b1 = { instance_type = "m6gd.medium", nodes = { n1 = { zone = "${var.region}a" } } }
    b2 = { instance_type = "m6gd.medium", nodes = { n2 = { zone = "${var.region}b" } } }
    b3 = { instance_type = "m6gd.medium", nodes = { n3 = { zone = "${var.region}c" } } }
  }
  coordinators = { c1 = { zone = "${var.region}a" } }
  proxies      = { min = 1, max = 2 }

  # Steps are what a small cluster pays most for: once a minute is a sixth of the default's price.
  snapshot_interval_seconds = 60

  operator_cidrs      = var.operator_cidrs
  session_manager     = true
  deletion_protection = false
  load                = { writes_per_second = 1, bytes_per_second = 10000, stored_bytes = 1000000000 }
}
