//! Curves as SVG.

use std::fmt::Write;

use super::digits;
use super::html::escaped;

/// Lines over one axis.
pub(super) struct Chart<'a> {
    pub(super) title: String,
    pub(super) x_label: &'a str,
    pub(super) series: Vec<Series<'a>>,
}

/// One line; with a single point, a dot.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) points: &'a [(f64, f64)],
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 30.0;
/// Points of a line; of more, neighbours are put together.
const MOST_POINTS: usize = 500;

impl Chart<'_> {
    pub(super) fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| series.points);
        let range = |value: fn(&(f64, f64)) -> f64| {
            let values = all().map(value).filter(|value| value.is_finite());
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
            match high > low {
                true => (low, high),
                // A constant has some room around it.
                false if low.is_finite() => (low - 0.5, low + 0.5),
                false => (0.0, 1.0),
            }
        };
        let (x_range, y_range) = (range(|point| point.0), range(|point| point.1));
        let x = |value: f64| {
            LEFT + (value - x_range.0) / (x_range.1 - x_range.0) * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| {
            HEIGHT
                - BOTTOM
                - (value - y_range.0) / (y_range.1 - y_range.0) * (HEIGHT - TOP - BOTTOM)
        };
        let title = escaped(&self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
             <text class=\"title\" x=\"{LEFT}\" y=\"16\">{title}</text>"
        );
        for value in ticks(y_range) {
            let at = y(value);
            add(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    at + 4.0,
                    digits(value)
                ),
            );
        }
        for value in ticks(x_range) {
            add(
                &mut svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    x(value),
                    HEIGHT - BOTTOM + 16.0,
                    digits(value)
                ),
            );
        }
        add(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                HEIGHT - 2.0,
                escaped(self.x_label)
            ),
        );
        let drawn = self.series.iter().enumerate();
        let mut legend = WIDTH - RIGHT;
        for (index, series) in drawn.filter(|(_, series)| !series.points.is_empty()) {
            let points = thinned(series.points);
            let places: Vec<String> = points
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
                .collect();
            if let [place] = places.as_slice() {
                let (at, value) = place.split_once(',').unwrap_or_default();
                add(
                    &mut svg,
                    format_args!("<circle class=\"d{index}\" r=\"3\" cx=\"{at}\" cy=\"{value}\"/>"),
                );
            } else {
                add(
                    &mut svg,
                    format_args!(
                        "<polyline class=\"s{index}\" points=\"{}\"/>",
                        places.join(" ")
                    ),
                );
            }
            let name = escaped(series.name);
            add(
                &mut svg,
                format_args!(
                    "<text class=\"d{index}\" x=\"{legend}\" y=\"16\" text-anchor=\"end\">{name}</text>"
                ),
            );
            legend -= 8.0 * series.name.len() as f64;
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Writing to a string cannot fail.
fn add(svg: &mut String, markup: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(markup);
}

/// Round numbers within a range, three to six of them.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let (first, last) = ((low / step).ceil(), (high / step).floor());
    if !(step > 0.0 && first.is_finite() && last - first < 20.0) {
        return Vec::new();
    }
    let count = (last - first) as i64;
    (0..=count)
        .map(|index| (first + index as f64) * step)
        .collect()
}

/// The means of neighbours, so that a long run is no larger a page than a short one.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(MOST_POINTS).max(1);
    let means = points.chunks(each).map(|chunk| {
        let count = chunk.len() as f64;
        let (x, y) = chunk
            .iter()
            .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / count, y / count)
    });
    means.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((0.0, 10.0)), [0.0, 5.0, 10.0]);
        assert_eq!(ticks((1.2, 2.1)), [1.5, 2.0]);
        for range in [(0.0, 1e-12), (-3.0, 7.5), (1e9, 1e9 + 1.0), (0.0, f64::MAX)] {
            let ticks = ticks(range);
            assert!(ticks.len() <= 20, "{range:?}: {ticks:?}");
            assert!(
                ticks.iter().all(|tick| (range.0..=range.1).contains(tick)),
                "{range:?}: {ticks:?}"
            );
        }
    }

    #[test]
    fn many_points_become_their_means() {
        let points: Vec<(f64, f64)> = (0..1000)
            .map(|i| (f64::from(i), f64::from(i % 2)))
            .collect();
        let thin = thinned(&points);
        assert_eq!(thin.len(), 500);
        assert!(thin.iter().all(|point| point.1 == 0.5));
        assert_eq!(thinned(&points[..3]), points[..3]);
    }
}
