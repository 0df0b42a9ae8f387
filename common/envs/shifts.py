"""Names of DMControl-GB's visual shifts."""

COLOR_SHIFTS = ("color_easy", "color_hard")
VIDEO_SHIFTS = ("video_easy", "video_hard")
SHIFTS = ("train", *COLOR_SHIFTS, *VIDEO_SHIFTS)
