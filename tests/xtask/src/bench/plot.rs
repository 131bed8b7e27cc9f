//! Latency percentiles as a picture.

use super::tools::Latency;
use anyhow::anyhow;
use plotters::prelude::*;
use std::path::Path;

const COLOURS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 100, 39)];
const NAMES: [&str; 3] = ["p50", "p99", "p99.9"];

/// Bars on a logarithmic scale, one group for each percentile.
pub(crate) fn latency(file: &Path, series: &[(&str, Latency)]) -> anyhow::Result<()> {
    draw(file, series).map_err(|e| anyhow!("cannot draw {}: {e}", file.display()))
}

fn draw(
    file: &Path,
    series: &[(&str, Latency)],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let err = |e: DrawingAreaErrorKind<_>| -> Box<dyn std::error::Error + Send + Sync> {
        e.to_string().into()
    };
    let values = |l: &Latency| [l.p50, l.p99, l.p999];
    let top = series
        .iter()
        .flat_map(|(_, l)| values(l))
        .fold(10.0, f64::max);
    let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
    area.fill(&WHITE).map_err(err)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Half round trip of a small message", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..3.0, (0.5..top * 1.5).log_scale())
        .map_err(err)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc("microseconds")
        .draw()
        .map_err(err)?;
    for (n, ((name, latency), colour)) in series.iter().zip(COLOURS).enumerate() {
        let bars = values(latency).into_iter().enumerate().map(move |(at, v)| {
            let left = at as f64 + 0.15 + 0.35 * n as f64;
            Rectangle::new([(left, 0.5), (left + 0.3, v)], colour.filled())
        });
        chart
            .draw_series(bars)
            .map_err(err)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        let texts = values(latency).into_iter().enumerate().map(move |(at, v)| {
            let left = at as f64 + 0.15 + 0.35 * n as f64;
            let text = format!("{}: {v:.1}", NAMES.get(at).unwrap_or(&""));
            Text::new(text, (left, v * 1.12), ("sans-serif", 12))
        });
        chart.draw_series(texts).map_err(err)?;
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperLeft)
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
        for text in ["masq", "TCP", "p99.9: 80.0", "microseconds"] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
    }
}
