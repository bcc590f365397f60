//! Line charts as SVG.
//!
//! Enough for a benchmark: lines with marks, axes from zero with round ticks, a legend. Colours are
//! those of Okabe and Ito, which people with any colour vision tell apart; text and grid follow the
//! reader's light or dark scheme.

use std::fmt::{self, Display, Write};

/// Pixels of the picture.
const SIZE: (f64, f64) = (760.0, 440.0);
/// Pixels around the plot: left, right (with the legend), above, below.
const MARGIN: (f64, f64, f64, f64) = (76.0, 176.0, 44.0, 56.0);
/// About so many ticks on an axis.
const TICKS: f64 = 6.0;
/// Okabe and Ito's colours, less black and yellow, which one of the schemes would hide.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "\
<style>
svg{background:#fff;font:13px system-ui,sans-serif}
text{fill:#333}.title{font-size:15px;font-weight:600}
.grid{stroke:#ddd}.axis{stroke:#888}.line{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.grid{stroke:#333}}
</style>
";

/// What the horizontal axis shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Horizontal {
    /// Numbers from 0.
    Numbers,
    /// Named places side by side; a value of 0 stands at the first.
    Places(Vec<String>),
}

/// A line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// Horizontal and vertical value of each point, neither negative. Points that are not finite
    /// are left out.
    pub points: Vec<(f64, f64)>,
    /// A word beside each point; may be shorter than `points`.
    pub labels: Vec<String>,
    /// Whether points have marks.
    pub marks: bool,
}

/// A line chart; it displays as a whole SVG file.
///
/// ```
/// use bantam_eval::{Chart, Horizontal, Line};
/// let points = vec![(0.0, 12.0), (1.0, 30.5)];
/// let line = Line { name: "p50".into(), points, labels: vec![], marks: true };
/// let places = Horizontal::Places(vec!["1".into(), "4".into()]);
/// let chart = Chart {
///     title: "Latency".into(),
///     horizontal: (places, "concurrency".into()),
///     vertical: "ms".into(),
///     lines: vec![line],
/// };
/// assert!(chart.to_string().starts_with("<svg xmlns="));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above the plot.
    pub title: String,
    /// The horizontal axis and its label.
    pub horizontal: (Horizontal, String),
    /// The vertical axis' label.
    pub vertical: String,
    /// From the seventh on, colours repeat with dashes.
    pub lines: Vec<Line>,
}

/// From values to pixels.
struct Scale {
    x_max: f64,
    y_max: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        MARGIN.0 + value / self.x_max * (SIZE.0 - MARGIN.0 - MARGIN.1)
    }

    fn y(&self, value: f64) -> f64 {
        SIZE.1 - MARGIN.3 - value / self.y_max * (SIZE.1 - MARGIN.2 - MARGIN.3)
    }
}

impl Chart {
    fn scale(&self) -> Scale {
        let points = || self.lines.iter().flat_map(Line::finite);
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let x_max = match &self.horizontal.0 {
            Horizontal::Numbers => round_up(largest(&mut points().map(|(x, _)| x))),
            // Half a place of room on either side.
            Horizontal::Places(names) => names.len().max(1) as f64,
        };
        Scale { x_max, y_max: round_up(largest(&mut points().map(|(_, y)| y))) }
    }

    /// The pixel of a horizontal value.
    fn x(&self, scale: &Scale, value: f64) -> f64 {
        match self.horizontal.0 {
            Horizontal::Numbers => scale.x(value),
            Horizontal::Places(_) => scale.x(value + 0.5),
        }
    }

    fn axes(&self, f: &mut fmt::Formatter<'_>, scale: &Scale) -> fmt::Result {
        let (left, right) = (scale.x(0.0), scale.x(scale.x_max));
        let (bottom, top) = (scale.y(0.0), scale.y(scale.y_max));
        for value in ticks(scale.y_max) {
            let y = scale.y(value);
            writeln!(f, r#"<path class="grid" d="M{left:.1} {y:.1}H{right:.1}"/>"#)?;
            text(f, (left - 8.0, y + 4.0), "end", &number(value))?;
        }
        match &self.horizontal.0 {
            Horizontal::Numbers => {
                for value in ticks(scale.x_max) {
                    text(f, (scale.x(value), bottom + 20.0), "middle", &number(value))?;
                }
            }
            Horizontal::Places(names) => {
                for (place, name) in names.iter().enumerate() {
                    text(f, (self.x(scale, place as f64), bottom + 20.0), "middle", name)?;
                }
            }
        }
        writeln!(
            f,
            r#"<path class="axis" fill="none" d="M{left:.1} {top:.1}V{bottom:.1}H{right:.1}"/>"#
        )?;
        text(f, ((left + right) / 2.0, bottom + 44.0), "middle", &self.horizontal.1)?;
        let middle = (top + bottom) / 2.0;
        writeln!(
            f,
            r#"<text transform="translate(20 {middle:.1})rotate(-90)" text-anchor="middle">{}</text>"#,
            Escaped(&self.vertical)
        )
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, scale: &Scale, index: usize) -> fmt::Result {
        let line = &self.lines[index];
        let colour = COLOURS[index % COLOURS.len()];
        let dashes = match index / COLOURS.len() {
            0 => String::new(),
            again => format!(r#" stroke-dasharray="{} 4""#, 12 / again.min(6)),
        };
        let pixels = line.finite().map(|(x, y)| (self.x(scale, x), scale.y(y)));
        let pixels: Vec<(f64, f64)> = pixels.collect();
        let mut path = String::new();
        for (x, y) in &pixels {
            write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' })?;
        }
        if !path.is_empty() {
            writeln!(f, r#"<path class="line" stroke="{colour}"{dashes} d="{path}"/>"#)?;
        }
        if line.marks {
            for (x, y) in &pixels {
                writeln!(f, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#)?;
            }
        }
        for ((x, y), label) in pixels.iter().zip(&line.labels) {
            text(f, (*x, y - 9.0), "middle", label)?;
        }
        let (x, y) = (SIZE.0 - MARGIN.1 + 16.0, MARGIN.2 + 8.0 + 22.0 * index as f64);
        writeln!(f, r#"<path class="line" stroke="{colour}"{dashes} d="M{x:.1} {y:.1}h20"/>"#)?;
        text(f, (x + 28.0, y + 4.0), "start", &line.name)
    }
}

impl Line {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

impl Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = SIZE;
        let scale = self.scale();
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">"#
        )?;
        write!(f, "<title>{}</title>\n{STYLE}", Escaped(&self.title))?;
        writeln!(
            f,
            r#"<text class="title" x="{}" y="26">{}</text>"#,
            MARGIN.0,
            Escaped(&self.title)
        )?;
        self.axes(f, &scale)?;
        (0..self.lines.len()).try_for_each(|index| self.line(f, &scale, index))?;
        writeln!(f, "</svg>")
    }
}

fn text(
    f: &mut fmt::Formatter<'_>,
    (x, y): (f64, f64),
    anchor: &str,
    content: &str,
) -> fmt::Result {
    let content = Escaped(content);
    writeln!(f, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#)
}

/// The distance of ticks: 1, 2 or 5 times a power of ten.
fn step(max: f64) -> f64 {
    let rough = max / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    // A little tolerance, or rounding would double steps that fit exactly.
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

/// The next tick at or above the largest value; 1 if there is none.
fn round_up(max: f64) -> f64 {
    if max <= 0.0 {
        return 1.0;
    }
    let step = step(max);
    (max / step - 1e-9).ceil() * step
}

/// Ticks from 0 to `max`, which is one.
fn ticks(max: f64) -> impl Iterator<Item = f64> {
    let step = step(max);
    let count = (max / step).round() as usize;
    (0..=count).map(move |index| index as f64 * step)
}

/// A tick's number, without the noise of binary fractions.
fn number(value: f64) -> String {
    let rounded = format!("{value:.6}");
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text for XML: markup is escaped, characters that XML cannot hold are replaced.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}'),
            _ => f.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chart(horizontal: Horizontal, name: &str, points: Vec<(f64, f64)>) -> Chart {
        let labels = points.iter().map(|(x, _)| x.to_string()).collect();
        let line = Line { name: name.into(), points, labels, marks: true };
        Chart {
            title: name.into(),
            horizontal: (horizontal, name.into()),
            vertical: name.into(),
            lines: vec![line.clone(), Line { marks: false, ..line }],
        }
    }

    /// A check of well-formedness, enough for what a chart writes: tags nest, attributes are
    /// quoted, text has no stray markup. The number of elements.
    fn elements(xml: &str) -> usize {
        let mut open: Vec<&str> = Vec::new();
        let mut count = 0;
        for part in xml.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("unclosed <{part}"));
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            for content in [tag, text] {
                for entity in content.split('&').skip(1) {
                    assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|e| entity.starts_with(e)));
                }
                assert!(content.chars().all(|c| c == '\n' || c >= ' '));
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else {
                count += 1;
                if !tag.ends_with('/') {
                    open.push(tag.split(' ').next().unwrap());
                }
            }
        }
        assert!(open.is_empty(), "{open:?}");
        count
    }

    #[test]
    fn ticks_are_round() {
        let of = |max: f64| ticks(round_up(max)).map(number).collect::<Vec<_>>().join(" ");
        assert_eq!(of(6.0), "0 1 2 3 4 5 6");
        assert_eq!(of(0.37), "0 0.1 0.2 0.3 0.4");
        assert_eq!(of(1234.0), "0 500 1000 1500");
        assert_eq!(of(0.0), "0 0.2 0.4 0.6 0.8 1");
    }

    #[test]
    fn points_stand_where_they_belong() {
        let svg = chart(Horizontal::Numbers, "x", vec![(0.0, 0.0), (6.0, 6.0)]).to_string();
        let (right, bottom) = (SIZE.0 - MARGIN.1, SIZE.1 - MARGIN.3);
        assert!(svg.contains(&format!(r#"cx="{:.1}" cy="{bottom:.1}""#, MARGIN.0)), "{svg}");
        assert!(svg.contains(&format!(r#"cx="{right:.1}" cy="{:.1}""#, MARGIN.2)), "{svg}");
    }

    #[test]
    fn nothing_to_show_is_a_chart_still() {
        assert!(elements(&chart(Horizontal::Numbers, "", Vec::new()).to_string()) > 10);
        let nowhere = vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)];
        let svg = chart(Horizontal::Places(Vec::new()), "", nowhere).to_string();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    proptest! {
        #[test]
        fn any_name_and_points_are_well_formed(
            name: String,
            points in prop::collection::vec((0.0..1e6f64, 0.0..1e-3f64), 0..9),
            places in prop::option::of(prop::collection::vec(any::<String>(), 0..9)),
        ) {
            let horizontal = places.map_or(Horizontal::Numbers, Horizontal::Places);
            let svg = chart(horizontal, &name, points.clone()).to_string();
            prop_assert!(elements(&svg) >= 2 * points.len());
        }

        #[test]
        fn the_last_tick_covers_the_largest_value(max in 1e-6..1e9f64) {
            let top = round_up(max);
            prop_assert!(top >= max * (1.0 - 1e-8) && top <= max * 2.0);
            prop_assert!((4..=9).contains(&ticks(top).count()));
        }
    }
}
