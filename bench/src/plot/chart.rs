//! One plot with a few lines, as SVG and as PNG.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    backend::{BitMapBackend, SVGBackend},
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, PathElement},
    prelude::DrawingBackend,
    series::LineSeries,
    style::{Color as _, FontStyle, IntoFont as _, RGBColor, ShapeStyle, WHITE, register_font},
};

use super::png;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// From where to where, and what is written beside it.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// With its unit.
    pub(super) name: &'static str,
    pub(super) scale: Scale,
    /// Values that have a label; the first and the last are the ends.
    pub(super) ticks: Vec<f64>,
    /// The label of a value.
    pub(super) label: fn(f64) -> String,
}

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Equal distances are equal factors.
    Logarithmic,
}

/// Points that belong together.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Chart {
    /// Writes `name.svg` and `name.png` into `dir`; nothing if there is nothing to draw.
    pub(super) fn save(&self, dir: &Path, name: &str) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| anyhow!("the font is damaged"))?;
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area(), 1)?;
        let file = dir.join(name).with_extension("svg");
        fs::write(&file, svg).with_context(|| format!("writing {}", file.display()))?;
        // Twice as fine as the drawing, for screens that are.
        let (width, height) = (2 * WIDTH, 2 * HEIGHT);
        let mut pixels = vec![0; usize::try_from(3 * width * height)?];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), 2)?;
        let file = dir.join(name).with_extension("png");
        fs::write(&file, png::encode(&pixels, width, height)?)
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Draws it `zoom` times as large as it is.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let font = |size: u32| ("sans-serif", size * zoom).into_font().color(&INK);
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .margin(14 * zoom)
            // Half of the last number on the axis.
            .margin_right(44 * zoom)
            .caption(&self.title, font(20))
            .x_label_area_size(46 * zoom)
            .y_label_area_size(80 * zoom)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .label_style(font(14))
            .axis_desc_style(font(15))
            .bold_line_style(GRID.stroke_width(zoom))
            .light_line_style(WHITE.mix(0.0))
            .axis_style(INK.stroke_width(zoom))
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let style = ShapeStyle::from(color).filled().stroke_width(2 * zoom);
            let length = i32::try_from(22 * zoom)?;
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(line.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + length, y)], style));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3 * zoom, style)))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .margin(8 * zoom)
            .legend_area_size(30 * zoom)
            .background_style(WHITE.mix(0.9))
            .label_font(font(14))
            .draw()?;
        area.present().context("finishing a plot")
    }
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        if self.scale == Scale::Linear { value } else { value.log10() }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let std::ops::Range { start, end } = self.range();
        let share = (self.place(*value) - self.place(start)) / (self.place(end) - self.place(start));
        RangedCoordf64::from(0.0..1.0).map(&share, limit)
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.ticks.first().copied().unwrap_or_default()..self.ticks.last().copied().unwrap_or(1.0)
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// Roboto by Google (Apache License 2.0), with those of its characters that are needed here.
const FONT: &[u8] = include_bytes!("../../fonts/roboto.ttf");
const WIDTH: u32 = 800;
const HEIGHT: u32 = 450;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(222, 222, 222);
/// Colours that nearly everybody can tell apart (Okabe and Ito, 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
