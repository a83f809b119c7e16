//! Pictures of values over seconds, as SVG to be put into a page.
//!
//! In: a [`Plot`]. Out: text of one `<svg>`. Colours are classes of the page's style, so that a picture
//! follows light and dark; that is why no library of plots makes them. Everything that comes from outside
//! is escaped here.

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 26.0;
/// More would not be seen: beyond it, several seconds make one point.
const POINTS_MAX: usize = 900;
/// Colours that the page has.
pub(crate) const COLOURS: usize = 8;

/// What is drawn, over the seconds from 0.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: Unit,
    pub(crate) log: bool,
    pub(crate) lines: Vec<Line>,
    pub(crate) seconds: f64,
    pub(crate) bands: &'a [Band],
    pub(crate) marks: &'a [Mark],
}

/// Values of one thing.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// By second; none: nothing is known, the line is broken there.
    pub(crate) values: Vec<Option<f64>>,
    /// What was asked for, not what was measured.
    pub(crate) dashed: bool,
}

/// A stretch of time with a name.
#[derive(Debug)]
pub(crate) struct Band {
    pub(crate) name: String,
    pub(crate) from: f64,
    pub(crate) until: f64,
}

/// A moment with a number, which the page explains.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) at: f64,
    pub(crate) number: usize,
    pub(crate) name: String,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Of something per second.
    PerSecond,
    Micros,
    /// 0.0 to 1.0.
    Share,
    Bytes,
}

impl Unit {
    /// In a few letters.
    pub(crate) fn show(self, value: f64) -> String {
        let scaled = |value: f64, units: &[(f64, &str)]| {
            let (factor, unit) = units
                .iter()
                .rfind(|(factor, _)| *factor <= value.abs() * 1.000_001)
                .or(units.first())
                .copied()
                .unwrap_or((1.0, ""));
            let value = value / factor;
            let digits = if value < 10.0 && 1e-9 < (value - value.round()).abs() { 1 } else { 0 };
            format!("{value:.digits$}{unit}")
        };
        match self {
            Self::PerSecond => scaled(value, &[(1.0, ""), (1e3, "k"), (1e6, "M")]),
            Self::Micros => scaled(value, &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")]),
            Self::Share => format!("{:.0} %", value * 100.0),
            Self::Bytes => {
                let units = [(1.0, " B"), (1024.0, " KiB"), (1_048_576.0, " MiB")];
                scaled(value, &[units.as_slice(), &[(1_073_741_824.0, " GiB")]].concat())
            }
        }
    }
}

/// Text for the inside of an element or of an attribute's quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to write these.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The values' axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    unit: Unit,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, unit: Unit, log: bool) -> Self {
        let high = values.clone().fold(0.0_f64, f64::max);
        if log {
            let low = values.filter(|value| 0.0 < *value).fold(f64::INFINITY, f64::min);
            let low = if low.is_finite() { low } else { 1.0 };
            let low = 10_f64.powf(low.log10().floor());
            return Self { low, high: (high * 1.2).max(low * 10.0), log, unit };
        }
        let high = match unit {
            Unit::Share => 1.0,
            _ if high <= 0.0 => 1.0,
            _ => high * 1.08,
        };
        Self { low: 0.0, high, log, unit }
    }

    fn y(self, value: f64) -> f64 {
        let share = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        TOP + (1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let few = (self.high / self.low).log10() < 2.5;
            let mut decade = self.low;
            while decade <= self.high {
                let within = |tick: &f64| *tick <= self.high;
                let of = if few { &[1.0, 2.0, 5.0][..] } else { &[1.0] };
                ticks.extend(of.iter().map(|factor| decade * factor).filter(within));
                decade *= 10.0;
            }
            return ticks;
        }
        let step = match self.unit {
            Unit::Bytes => (self.high / 5.0).log2().ceil().exp2(),
            _ => step(self.high / 5.0),
        };
        let mut tick = 0.0;
        while tick <= self.high * 1.000_001 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// The next of 1, 2, 5, 10, …
fn step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    let fits = |factor: &f64| least <= decade * factor * 1.000_001;
    decade * [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0)
}

/// Seconds between the marks of the time's axis.
fn step_seconds(seconds: f64) -> f64 {
    const STEPS: [f64; 14] = [
        1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
    ];
    STEPS.into_iter().find(|step| seconds / step <= 12.0).unwrap_or_else(|| step(seconds / 12.0))
}

fn show_time(seconds: f64, step: f64) -> String {
    if step < 60.0 && seconds < 600.0 {
        return format!("{seconds:.0} s");
    }
    format!("{:.0}:{:02.0}", (seconds / 60.0).floor(), seconds % 60.0)
}

impl Plot<'_> {
    /// Seconds that make one point.
    pub(crate) fn grouped(&self) -> usize {
        let longest = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        longest.div_ceil(POINTS_MAX).max(1)
    }

    /// The whole picture.
    pub(crate) fn svg(&self) -> String {
        let group = self.grouped();
        let lines: Vec<Vec<Option<f64>>> =
            self.lines.iter().map(|line| self.thin(&line.values, group)).collect();
        let values = lines.iter().flatten().flatten().copied();
        let axis = Axis::new(values, self.unit, self.log);
        let title = escape(self.title);
        let mut svg = String::new();
        // Writing to a text cannot fail.
        let _ = writeln!(
            svg,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.draw_bands(&mut svg);
        self.draw_axes(&mut svg, axis);
        for (at, (line, values)) in self.lines.iter().zip(&lines).enumerate() {
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = writeln!(
                svg,
                "<path class=\"line c{}{dashed}\" d=\"{}\"><title>{}</title></path>",
                at % COLOURS,
                self.path(values, group, axis),
                escape(&line.name)
            );
        }
        self.draw_marks(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn path(&self, values: &[Option<f64>], group: usize, axis: Axis) -> String {
        let mut path = String::new();
        let mut drawing = false;
        for (at, value) in values.iter().enumerate() {
            let Some(value) = value else {
                drawing = false;
                continue;
            };
            let x = self.x((at as f64 + 0.5) * group as f64);
            let y = axis.y(*value);
            // A point by itself is seen by a line of no length with round ends.
            let _ = match drawing {
                true => write!(path, "L{x:.1} {y:.1}"),
                false => write!(path, "M{x:.1} {y:.1}h.1"),
            };
            drawing = true;
        }
        path
    }

    /// Several seconds as one: the worst of latencies, the mean of anything else.
    #[expect(clippy::cast_precision_loss, reason = "a few values")]
    fn thin(&self, values: &[Option<f64>], group: usize) -> Vec<Option<f64>> {
        let positive = |value: &f64| !self.log || 0.0 < *value;
        let one = |chunk: &[Option<f64>]| {
            let known: Vec<f64> = chunk.iter().flatten().copied().filter(positive).collect();
            let worst = known.iter().copied().reduce(f64::max)?;
            Some(if self.log { worst } else { known.iter().sum::<f64>() / known.len() as f64 })
        };
        values.chunks(group).map(one).collect()
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (second / self.seconds.max(1.0)).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn draw_bands(&self, svg: &mut String) {
        for (at, band) in self.bands.iter().enumerate() {
            let (from, until) = (self.x(band.from), self.x(band.until));
            let (wide, high) = (until - from, HEIGHT - TOP - BOTTOM);
            let _ = writeln!(
                svg,
                "<rect class=\"band b{}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" \
                 height=\"{high}\"><title>{}</title></rect>",
                at % 2,
                escape(&band.name)
            );
            // About 7 units for a letter.
            if band.name.chars().count() as f64 * 7.0 < wide {
                let _ = writeln!(
                    svg,
                    "<text class=\"faint\" x=\"{:.1}\" y=\"12\" text-anchor=\"middle\">{}</text>",
                    f64::midpoint(from, until),
                    escape(&band.name)
                );
            }
        }
    }

    fn draw_axes(&self, svg: &mut String, axis: Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in axis.ticks() {
            let (y, text) = (axis.y(tick), escape(&self.unit.show(tick)));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        let step = step_seconds(self.seconds);
        let mut second = 0.0;
        while second <= self.seconds {
            let (x, text) = (self.x(second), show_time(second, step));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v4\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                HEIGHT - 7.0
            );
            second += step;
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
    }

    fn draw_marks(&self, svg: &mut String) {
        for mark in self.marks {
            let x = self.x(mark.at);
            let bottom = HEIGHT - BOTTOM;
            let _ = writeln!(
                svg,
                "<g class=\"mark\"><title>{}</title><path d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"9\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>",
                escape(&mark.name),
                TOP - 9.0,
                TOP - 5.0,
                mark.number
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool, values: Vec<Option<f64>>) -> String {
        let seconds = values.len() as f64;
        let lines = vec![Line { name: "one".to_owned(), values, dashed: false }];
        let unit = if log { Unit::Micros } else { Unit::PerSecond };
        Plot { title: "t", unit, log, lines, seconds, bands: &[], marks: &[] }.svg()
    }

    fn path(svg: &str) -> &str {
        let from = svg.find("class=\"line").expect("a line");
        svg[from..].split("d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path")
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known_and_stays_within_the_picture() {
        let svg = plot(false, vec![Some(1.0), Some(2.0), None, Some(0.0)]);
        assert_eq!(path(&svg).matches('M').count(), 2);
        assert_eq!(path(&svg).matches('L').count(), 1);
        for values in [vec![], vec![None], vec![Some(0.0)], vec![Some(1e12)], vec![Some(1e-9)]] {
            for log in [false, true] {
                let svg = plot(log, values.clone());
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?}: {svg}");
            }
        }
    }

    #[test]
    fn a_long_line_is_thinned_and_keeps_its_worst_latency() {
        let mut values = vec![Some(100.0); 10_000];
        values[5_001] = Some(1e6);
        let svg = plot(true, values);
        let points = path(&svg).matches(['M', 'L']).count();
        assert!((400..=POINTS_MAX).contains(&points), "{points}");
        assert_eq!(path(&svg).matches(" 39.").count() + path(&svg).matches(" 3").count(), 1);
    }

    #[test]
    fn numbers_are_shown_in_a_few_letters() {
        let shown = [
            Unit::PerSecond.show(0.0),
            Unit::PerSecond.show(1500.0),
            Unit::PerSecond.show(20_000.0),
            Unit::Micros.show(500.0),
            Unit::Micros.show(10_000.0),
            Unit::Micros.show(2e6),
            Unit::Share.show(0.25),
            Unit::Bytes.show(1_048_576.0),
        ];
        assert_eq!(shown, ["0", "1.5k", "20k", "500 µs", "10 ms", "2 s", "25 %", "1 MiB"]);
        assert_eq!([step(0.9), step(1.0), step(130.0)], [1.0, 1.0, 200.0]);
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        assert_eq!(escape("a<b>&\"'\u{1}"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}");
    }
}
