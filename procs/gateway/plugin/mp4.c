/* plugin/mp4.c - H.264 in fragmented MP4 through libav; see mp4.h.
 *
 * One block of frames is one closed GOP is one moof and mdat. Time is counted in frames (timescale
 * fps), so a fragment's decode time is the index of its first frame and nothing is ever rounded.
 * No trailer is written: it would have to be cut off again to go on, and the muxer would keep a
 * record of every fragment for it, without end.
 */
#include "procs/gateway/plugin/mp4.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IO_BYTES = 64 * 1024 };

/* What the muxer wrote since the last cut. Grows to the largest block and stays there. */
struct mem {
    uint8_t *bytes;
    size_t n_bytes, room_bytes;
};

struct mp4_enc {
    AVCodecContext *codec;
    AVFormatContext *mux;
    AVFrame *frame;
    AVPacket *packet;
    struct mem mem;
    uint8_t *header;
    int64_t frame_at, packet_at; /* index of the next frame in, of the next packet out */
    bool in_block;
};

static const char *const encoders[] = {"libx264", "libopenh264"};

/* libav's last complaint; it belongs into the sentence of the error it led to. */
static char said[128];

static void hear(void *self, int level, const char *fmt, va_list ap)
{
    (void)self;
    if (level > AV_LOG_ERROR) return;
    vsnprintf(said, sizeof said, fmt, ap);
    said[strcspn(said, "\r\n")] = '\0';
}

static err_t fail(err_t code, char why[MP4_WHY_BYTES], const char *what, int av)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    if (av != 0) av_strerror(av, text, sizeof text);
    snprintf(why, MP4_WHY_BYTES, "%s%s%s%s%s", what, *text ? ": " : "", text, *said ? ": " : "",
             said);
    said[0] = '\0';
    return av == AVERROR(ENOMEM) ? ERR_NOMEM : code;
}

static int mem_write(void *self, uint8_t *from, int n)
{
    struct mem *m = self;
    const size_t need = m->n_bytes + (size_t)n;
    if (need > m->room_bytes) {
        const size_t room = need > 2 * m->room_bytes ? need : 2 * m->room_bytes;
        uint8_t *grown = realloc(m->bytes, room);
        if (!grown) return AVERROR(ENOMEM);
        m->bytes = grown;
        m->room_bytes = room;
    }
    memcpy(m->bytes + m->n_bytes, from, (size_t)n);
    m->n_bytes = need;
    return n;
}

static const AVCodec *find_encoder(void)
{
    const AVCodec *found = NULL;
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders && !found; i++)
        found = avcodec_find_encoder_by_name(encoders[i]);
    return found;
}

static const char *enc_encoder(void)
{
    const AVCodec *codec = find_encoder();
    return codec ? codec->name : NULL;
}

static void enc_close(struct mp4_enc **enc)
{
    struct mp4_enc *m = *enc;
    if (!m) return;
    if (m->mux && m->mux->pb) {
        av_freep(&m->mux->pb->buffer);
        avio_context_free(&m->mux->pb);
    }
    avformat_free_context(m->mux);
    avcodec_free_context(&m->codec);
    av_frame_free(&m->frame);
    av_packet_free(&m->packet);
    free(m->mem.bytes);
    free(m->header);
    free(m);
    *enc = NULL;
}

/* Tags that say what yuv.h does; a GOP that ends only where frame() says so. */
static void set_codec(AVCodecContext *c, int32_t width_px, int32_t height_px, int32_t fps)
{
    c->width = width_px;
    c->height = height_px;
    c->time_base = (AVRational){1, fps};
    c->framerate = (AVRational){fps, 1};
    c->sample_aspect_ratio = (AVRational){1, 1};
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_SMPTE170M;
    c->color_primaries = AVCOL_PRI_SMPTE170M;
    c->color_trc = AVCOL_TRC_SMPTE170M;
    c->chroma_sample_location = AVCHROMA_LOC_CENTER;
    c->gop_size = 1 << 20;
    c->max_b_frames = 0;
    c->thread_count = 1; /* far faster than frames come; the models need the other cores */
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_CLOSED_GOP;
}

static int open_codec(struct mp4_enc *m, const AVCodec *codec)
{
    AVDictionary *opt = NULL;
    if (strcmp(codec->name, "libx264") == 0) {
        av_dict_set(&opt, "preset", "veryfast", 0);
        av_dict_set(&opt, "tune", "zerolatency", 0);
        av_dict_set(&opt, "crf", "18", 0);
        av_dict_set(&opt, "forced-idr", "1", 0);
        av_dict_set(&opt, "sc_threshold", "0", 0); /* a cut in the picture begins no GOP */
    } else {
        /* Without constant quality, a rate at which H.264 shows no loss: 0.25 bits a pixel. */
        m->codec->bit_rate =
            (int64_t)m->codec->width * m->codec->height * m->codec->framerate.num / 4;
    }
    const int av = avcodec_open2(m->codec, codec, &opt);
    av_dict_free(&opt);
    return av;
}

static int open_mux(struct mp4_enc *m, int32_t fps)
{
    AVDictionary *opt = NULL;
    uint8_t *buffer = NULL;
    AVStream *st = NULL;
    int av = avformat_alloc_output_context2(&m->mux, NULL, "mp4", NULL);
    if (av < 0) return av;
    buffer = av_malloc(IO_BYTES);
    if (!buffer) return AVERROR(ENOMEM);
    m->mux->pb = avio_alloc_context(buffer, IO_BYTES, 1, &m->mem, NULL, mem_write, NULL);
    if (!m->mux->pb) {
        av_free(buffer);
        return AVERROR(ENOMEM);
    }
    st = avformat_new_stream(m->mux, NULL);
    if (!st) return AVERROR(ENOMEM);
    av = avcodec_parameters_from_context(st->codecpar, m->codec);
    if (av < 0) return av;

    st->time_base = m->codec->time_base;
    st->avg_frame_rate = m->codec->framerate;
    /* Bit exact: no version of libav in the header, which a successor compares. */
    m->mux->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT;
    m->mux->avoid_negative_ts = AVFMT_AVOID_NEG_TS_DISABLED; /* a resumed file begins not at 0 */
    av_dict_set(&opt, "movflags",
                "frag_custom+empty_moov+default_base_moof+frag_discont+skip_trailer", 0);
    av_dict_set_int(&opt, "video_track_timescale", fps, 0);
    av = avformat_write_header(m->mux, &opt);
    av_dict_free(&opt);
    if (av >= 0) avio_flush(m->mux->pb);
    return av < 0 ? av : m->mux->pb->error;
}

static err_t enc_open(struct mp4_enc **enc, int32_t width_px, int32_t height_px, int32_t fps,
                      const uint8_t **header, size_t *header_bytes, char why[MP4_WHY_BYTES])
{
    err_t e = OK;
    int av = 0;
    struct mp4_enc *m = calloc(1, sizeof *m);
    if (!m) return fail(ERR_NOMEM, why, "MP4 encoder", 0);

    av_log_set_callback(hear);
    const AVCodec *codec = find_encoder();
    if (!codec) TRY(fail(ERR_NONE, why, "libav has no H.264 encoder", 0));
    m->codec = avcodec_alloc_context3(codec);
    m->frame = av_frame_alloc();
    m->packet = av_packet_alloc();
    if (!m->codec || !m->frame || !m->packet) TRY(fail(ERR_NOMEM, why, "MP4 encoder", 0));

    set_codec(m->codec, width_px, height_px, fps);
    if ((av = open_codec(m, codec)) < 0) TRY(fail(ERR_CONFIG, why, codec->name, av));
    m->frame->format = m->codec->pix_fmt;
    m->frame->width = width_px;
    m->frame->height = height_px;
    if ((av = av_frame_get_buffer(m->frame, 0)) < 0) TRY(fail(ERR_NOMEM, why, "frame", av));
    if ((av = open_mux(m, fps)) < 0) TRY(fail(ERR_CONFIG, why, "MP4 header", av));

    m->header = malloc(m->mem.n_bytes);
    if (!m->header) TRY(fail(ERR_NOMEM, why, "MP4 header", 0));
    memcpy(m->header, m->mem.bytes, m->mem.n_bytes);
    *header = m->header;
    *header_bytes = m->mem.n_bytes;
    m->mem.n_bytes = 0;
    *enc = m;
    m = NULL;
out:
    enc_close(&m);
    return e;
}

static void enc_resume(struct mp4_enc *m, int64_t n_frames, int64_t n_fragments)
{
    m->frame_at = m->packet_at = n_frames;
    av_opt_set_int(m->mux->priv_data, "fragment_index", n_fragments + 1, 0);
}

/* Hands to the muxer what the encoder has ready. */
static err_t take_packets(struct mp4_enc *m, char why[MP4_WHY_BYTES])
{
    for (;;) {
        int av = avcodec_receive_packet(m->codec, m->packet);
        if (av == AVERROR(EAGAIN)) return OK;
        if (av < 0) return fail(ERR_BUG, why, "encoder", av);
        if (m->packet->pts != m->packet_at || m->packet->dts != m->packet_at)
            return fail(ERR_BUG, why, "the encoder changed the order of frames", 0);
        m->packet_at++;
        m->packet->duration = 1;
        m->packet->stream_index = 0;
        av_packet_rescale_ts(m->packet, m->codec->time_base, m->mux->streams[0]->time_base);
        av = av_write_frame(m->mux, m->packet);
        av_packet_unref(m->packet);
        if (av < 0) return fail(ERR_BUG, why, "muxer", av);
    }
}

static err_t enc_frame(struct mp4_enc *m, const uint8_t *i420, char why[MP4_WHY_BYTES])
{
    AVFrame *f = m->frame;
    if (!m->in_block) m->mem.n_bytes = 0;
    int av = av_frame_make_writable(f);
    if (av < 0) return fail(ERR_NOMEM, why, "frame", av);
    for (int plane = 0; plane < 3; plane++) {
        const int x = plane == 0 ? f->width : f->width / 2;
        const int y = plane == 0 ? f->height : f->height / 2;
        av_image_copy_plane(f->data[plane], f->linesize[plane], i420, x, x, y);
        i420 += (size_t)x * (size_t)y;
    }
    f->pts = m->frame_at;
    f->pict_type = m->in_block ? AV_PICTURE_TYPE_NONE : AV_PICTURE_TYPE_I;
    av = avcodec_send_frame(m->codec, f);
    if (av < 0) return fail(ERR_BUG, why, "encoder", av);
    m->frame_at++;
    m->in_block = true;
    return take_packets(m, why);
}

static err_t enc_cut(struct mp4_enc *m, const uint8_t **bytes, size_t *n_bytes,
                     char why[MP4_WHY_BYTES])
{
    if (m->packet_at != m->frame_at)
        return fail(ERR_BUG, why, "the encoder holds frames back over the end of a block", 0);
    const int av = av_write_frame(m->mux, NULL); /* frag_custom: a flush is a fragment */
    if (av < 0) return fail(ERR_BUG, why, "muxer", av);
    avio_flush(m->mux->pb);
    if (m->mux->pb->error < 0) return fail(ERR_BUG, why, "muxer", m->mux->pb->error);
    m->in_block = false;
    *bytes = m->mem.bytes;
    *n_bytes = m->mem.n_bytes;
    return OK;
}

const struct mp4_plugin longlived_mp4 = {
    .version = MP4_PLUGIN_VERSION,
    .encoder = enc_encoder,
    .open = enc_open,
    .resume = enc_resume,
    .frame = enc_frame,
    .cut = enc_cut,
    .close = enc_close,
};
