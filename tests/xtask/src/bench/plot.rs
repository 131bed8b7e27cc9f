//! Latency percentiles as a picture.

use super::tools::Latency;
use anyhow::anyhow;
use plotters::prelude::*;
use std::path::Path;

const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 100, 39),
    RGBColor(140, 186, 220),
    RGBColor(240, 178, 138),
];

/// Bars on a logarithmic scale, in groups.
pub(crate) struct Bars {
    pub(crate) caption: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) groups: Vec<String>,
    /// A name, and a value for each group.
    pub(crate) series: Vec<(String, Vec<f64>)>,
}

/// One group for each percentile.
pub(crate) fn latency(file: &Path, series: &[(&str, Latency)]) -> anyhow::Result<()> {
    let series = series.iter().map(|(name, l)| {
        let values = vec![l.p50, l.p99, l.p999];
        ((*name).to_owned(), values)
    });
    bars(
        file,
        &Bars {
            caption: "Half round trip of a small message",
            unit: "microseconds",
            groups: ["p50", "p99", "p99.9"].map(str::to_owned).to_vec(),
            series: series.collect(),
        },
    )
}

pub(crate) fn bars(file: &Path, bars: &Bars) -> anyhow::Result<()> {
    draw(file, bars).map_err(|e| anyhow!("cannot draw {}: {e}", file.display()))
}

fn draw(file: &Path, bars: &Bars) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let err = |e: DrawingAreaErrorKind<_>| -> Box<dyn std::error::Error + Send + Sync> {
        e.to_string().into()
    };
    let values = || bars.series.iter().flat_map(|(_, values)| values);
    let top = values().copied().fold(10.0, f64::max);
    let least = values().copied().fold(1.0, f64::min);
    let bottom = (least / 2.0).max(0.01);
    let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
    area.fill(&WHITE).map_err(err)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(bars.caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(
            -0.5..bars.groups.len() as f64 - 0.5,
            // Room for the names of the series above the highest bar.
            (bottom..top * 3.0).log_scale(),
        )
        .map_err(err)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(bars.groups.len() + 1)
        .x_label_formatter(&|at| {
            let group = bars.groups.get(at.round().max(0.0) as usize);
            let is_middle = (at - at.round()).abs() < 0.01;
            group.filter(|_| is_middle).cloned().unwrap_or_default()
        })
        .y_desc(bars.unit)
        .draw()
        .map_err(err)?;
    let width = 0.8 / bars.series.len().max(1) as f64;
    let left = |group: usize, n: usize| group as f64 - 0.4 + width * n as f64;
    for (n, ((name, values), colour)) in bars.series.iter().zip(COLOURS).enumerate() {
        let drawn = values.iter().enumerate().map(|(group, value)| {
            let left = left(group, n);
            let right = left + width * 0.9;
            Rectangle::new(
                [(left, bottom), (right, value.max(bottom))],
                colour.filled(),
            )
        });
        chart
            .draw_series(drawn)
            .map_err(err)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        let texts = values.iter().enumerate().map(|(group, value)| {
            let digits = usize::from(*value < 100.0);
            let place = (left(group, n), value.max(bottom) * 1.15);
            Text::new(format!("{value:.digits$}"), place, ("sans-serif", 12))
        });
        chart.draw_series(texts).map_err(err)?;
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperRight)
        .draw()
        .map_err(err)?;
    area.present().map_err(err)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_what_it_shows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("latency.svg");
        let latency = |p50| Latency {
            p50,
            p99: p50 * 2.0,
            p999: p50 * 4.0,
        };
        super::latency(&file, &[("masq", latency(2.0)), ("TCP", latency(20.0))]).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for text in ["masq", "TCP", "p99.9", "80.0", "microseconds"] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
    }
}
