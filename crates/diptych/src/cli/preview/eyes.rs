//! Pictures of any channels as a screen shows them, several in one scale.

use diptych::augment::{Image, Picture};

/// What black and white mean; for 8-bit RGB they are 0 and 255, and nothing is done.
///
/// Numbers of other pictures may have any scale, and one that is measured on each picture alone would hide that one is brighter.
pub(crate) struct Eyes {
    /// For red, green and blue: channel, least and greatest number.
    channels: [Option<(usize, f32, f32)>; 3],
}

impl Eyes {
    /// Black and white are the least and the greatest number of each channel of `picture`. One channel is seen as gray, two as red and green,
    /// of more the first three.
    pub(crate) fn used_to(picture: &Picture) -> Self {
        let count = picture.format().channels;
        let values = values(picture);
        let of_color = |color: usize| if count == 1 { Some(0) } else { Some(color).filter(|&c| c < count) };
        let range = |c: usize| {
            let channel = values.iter().skip(c).step_by(count).filter(|v| v.is_finite());
            let (low, high) = channel.fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
            (c, low, high)
        };
        Self { channels: [0, 1, 2].map(|color| of_color(color).map(range)) }
    }

    /// The picture as 8-bit RGB; what is darker than black or brighter than white is cut off.
    pub(crate) fn see(&self, picture: &Picture) -> Image {
        if let Some(image) = picture.as_rgb() {
            return image.clone();
        }
        let mut out = Image::filled(picture.width(), picture.height(), [0; 3]);
        let values = values(picture);
        for (to, from) in out.pixels.chunks_exact_mut(3).zip(values.chunks_exact(picture.format().channels)) {
            for (to, channel) in to.iter_mut().zip(self.channels) {
                if let Some((c, low, high)) = channel.filter(|(_, low, high)| high > low) {
                    *to = ((from[c] - low) / (high - low) * 255.0 + 0.5) as u8;
                }
            }
        }
        out
    }
}

/// All numbers, `[height, width, channels]`.
fn values(picture: &Picture) -> Vec<f32> {
    let channels = picture.format().channels;
    let mut values = vec![0.0; picture.width() * picture.height() * channels];
    picture.normalize_into(&vec![0.0; channels], &vec![1.0; channels], &mut values);
    values
}
