// A USB webcam at /dev/video0 that exists only inside the process it is preloaded into, so that OpenCV's own V4L2 code
// can be driven without hardware.
//
//     gcc -shared -fPIC -O2 -o fakev4l2.so fakev4l2.c -ldl -lpthread
//     LD_PRELOAD=./fakev4l2.so FAKEV4L2_MJPEG=pictures.mjpeg program
//
// FAKEV4L2_MJPEG  concatenated JPEG files, sent in turn in the MJPG modes
// FAKEV4L2_UNPLUG a path: while it exists, every call fails with ENODEV and the device cannot be opened
// FAKEV4L2_HANG   a path: while it exists, the camera is there but sends nothing, so that reads wait
// FAKEV4L2_LOG    set: format, rate and stream changes are printed to stderr
//
// A second open fails with EBUSY. YUYV pictures carry the wall clock in milliseconds as 44 light or dark blocks in the
// top 16 rows, lowest bit first; below is a texture that drifts.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BUFFERS = 8, QUEUE = 64, MAX_JPEGS = 4096, CLOCK_BITS = 44, CLOCK_ROWS = 16, OFFSET_SHIFT = 28 };

static const struct mode {
    uint32_t format;
    int width, height, max_fps;
} MODES[] = {
    {V4L2_PIX_FMT_YUYV, 640, 480, 30},  {V4L2_PIX_FMT_YUYV, 1280, 720, 10},  {V4L2_PIX_FMT_YUYV, 1920, 1080, 5},
    {V4L2_PIX_FMT_MJPEG, 640, 480, 30}, {V4L2_PIX_FMT_MJPEG, 1280, 720, 30}, {V4L2_PIX_FMT_MJPEG, 1920, 1080, 30},
};
enum { MODE_COUNT = sizeof MODES / sizeof *MODES };

// The camera. Its descriptor is an eventfd that counts filled buffers, so that select and poll work on it.
static int device = -1;
static struct v4l2_pix_format format;
static int fps = 30;
static struct {
    void *data;
    size_t used;
    struct timespec stamp;
    uint32_t sequence;
} buffers[MAX_BUFFERS];
static int buffer_count;
static size_t buffer_size;
static struct {
    int items[QUEUE];
    unsigned head, tail;
} empty, filled; // buffer indices, guarded by `guard`
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_t streamer;
static volatile int streaming;
static uint32_t sequence;

static uint8_t *jpegs;
static size_t jpeg_offsets[MAX_JPEGS + 1];
static int jpeg_count;

static int (*real_ioctl)(int, unsigned long, ...);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_munmap)(void *, size_t);

#define LOG(...)                                                                                                       \
    do {                                                                                                               \
        if (getenv("FAKEV4L2_LOG"))                                                                                    \
            fprintf(stderr, "[fakev4l2] " __VA_ARGS__);                                                                \
    } while (0)

static void find_real(void) {
    if (real_ioctl)
        return;
    real_open = dlsym(RTLD_NEXT, "open");
    real_close = dlsym(RTLD_NEXT, "close");
    real_mmap = dlsym(RTLD_NEXT, "mmap");
    real_munmap = dlsym(RTLD_NEXT, "munmap");
    real_ioctl = dlsym(RTLD_NEXT, "ioctl");
}

static int fail(int code) {
    errno = code;
    return -1;
}

static int told(const char *variable) {
    const char *path = getenv(variable);
    return path && access(path, F_OK) == 0;
}

static int unplugged(void) { return told("FAKEV4L2_UNPLUG"); }

// Pictures ------------------------------------------------------------------------------------------------------------

static void load_jpegs(void) {
    const char *path = getenv("FAKEV4L2_MJPEG");
    FILE *file = path && !jpegs ? fopen(path, "rb") : NULL;
    if (!file)
        return;
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    jpegs = malloc(size);
    size = fread(jpegs, 1, size, file);
    fclose(file);
    for (size_t i = 0; i + 2 < size && jpeg_count < MAX_JPEGS; i++)
        if (jpegs[i] == 0xff && jpegs[i + 1] == 0xd8 && jpegs[i + 2] == 0xff)
            jpeg_offsets[jpeg_count++] = i;
    jpeg_offsets[jpeg_count] = size;
}

static size_t fill_jpeg(uint8_t *out) {
    int which = sequence % jpeg_count;
    size_t size = jpeg_offsets[which + 1] - jpeg_offsets[which];
    if (size > format.sizeimage)
        size = format.sizeimage;
    memcpy(out, jpegs + jpeg_offsets[which], size);
    return size;
}

static size_t fill_yuyv(uint8_t *out) {
    int width = format.width, height = format.height, block = (width / CLOCK_BITS) & ~1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = now.tv_sec * 1000ull + now.tv_nsec / 1000000;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t luma = ((x + sequence * 4) >> 2) ^ (y >> 2);
            if (y < CLOCK_ROWS)
                luma = x / block < CLOCK_BITS && (ms >> (x / block) & 1) ? 235 : 16;
            *out++ = luma;
            *out++ = 128;
        }
    return (size_t)width * height * 2;
}

// Streaming -----------------------------------------------------------------------------------------------------------

static void announce(void) {
    uint64_t one = 1;
    if (write(device, &one, sizeof one) < 0)
        perror("fakev4l2");
}

static void fill_next(void) {
    pthread_mutex_lock(&guard);
    sequence++;
    if (empty.head != empty.tail) {
        int index = empty.items[empty.head++ % QUEUE];
        int as_jpeg = format.pixelformat == V4L2_PIX_FMT_MJPEG && jpeg_count;
        buffers[index].used = as_jpeg ? fill_jpeg(buffers[index].data) : fill_yuyv(buffers[index].data);
        buffers[index].sequence = sequence;
        clock_gettime(CLOCK_MONOTONIC, &buffers[index].stamp);
        filled.items[filled.tail++ % QUEUE] = index;
        announce();
    }
    pthread_mutex_unlock(&guard);
}

static void *stream(void *unused) {
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    while (streaming) {
        due.tv_nsec += 1000000000L / fps;
        due.tv_sec += due.tv_nsec / 1000000000L;
        due.tv_nsec %= 1000000000L;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        if (streaming && !told("FAKEV4L2_HANG"))
            fill_next();
        if (unplugged())
            announce(); // wakes a reader, who then meets ENODEV
    }
    return unused;
}

static int stream_on(void) {
    sequence = 0;
    filled.head = filled.tail = 0;
    streaming = 1;
    pthread_create(&streamer, NULL, stream, NULL);
    LOG("STREAMON %.4s %dx%d@%d buffers=%d\n", (char *)&format.pixelformat, format.width, format.height, fps,
        buffer_count);
    return 0;
}

static int stream_off(void) {
    if (streaming) {
        streaming = 0;
        pthread_join(streamer, NULL);
    }
    uint64_t count;
    int flags = fcntl(device, F_GETFL);
    fcntl(device, F_SETFL, flags | O_NONBLOCK);
    while (read(device, &count, sizeof count) == sizeof count)
        ;
    fcntl(device, F_SETFL, flags);
    empty.head = empty.tail = filled.head = filled.tail = 0;
    return 0;
}

// Formats -------------------------------------------------------------------------------------------------------------

static const struct mode *nth_mode(uint32_t pixel_format, unsigned n) {
    for (int i = 0; i < MODE_COUNT; i++)
        if (MODES[i].format == pixel_format && n-- == 0)
            return &MODES[i];
    return NULL;
}

static const struct mode *mode_of(uint32_t pixel_format, int width) {
    for (int i = 0; i < MODE_COUNT; i++)
        if (MODES[i].format == pixel_format && MODES[i].width == width)
            return &MODES[i];
    return NULL;
}

static void limit_fps(void) {
    int most = mode_of(format.pixelformat, format.width)->max_fps;
    fps = fps < 1 ? 1 : fps > most ? most : fps;
}

static void set_format(uint32_t pixel_format, int width, int height) {
    if (!nth_mode(pixel_format, 0))
        pixel_format = V4L2_PIX_FMT_YUYV;
    const struct mode *best = nth_mode(pixel_format, 0);
    for (int i = 0; i < MODE_COUNT; i++) {
        const struct mode *mode = &MODES[i];
        long wanted = (long)width * height;
        if (mode->format == pixel_format && labs((long)mode->width * mode->height - wanted) <
                                                labs((long)best->width * best->height - wanted))
            best = mode;
    }
    format = (struct v4l2_pix_format){
        .width = best->width,
        .height = best->height,
        .pixelformat = pixel_format,
        .field = V4L2_FIELD_NONE,
        .bytesperline = pixel_format == V4L2_PIX_FMT_YUYV ? best->width * 2 : 0,
        .sizeimage = best->width * best->height * 2,
        .colorspace = V4L2_COLORSPACE_SRGB,
    };
    limit_fps();
}

static int try_or_set_format(struct v4l2_format *wish, int only_try) {
    if (wish->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    if (!only_try && streaming)
        return fail(EBUSY);
    struct v4l2_pix_format before = format;
    int fps_before = fps;
    set_format(wish->fmt.pix.pixelformat, wish->fmt.pix.width, wish->fmt.pix.height);
    wish->fmt.pix = format;
    if (only_try) {
        format = before;
        fps = fps_before;
    } else
        LOG("S_FMT %.4s %dx%d\n", (char *)&format.pixelformat, format.width, format.height);
    return 0;
}

static int get_or_set_rate(struct v4l2_streamparm *rate, int set) {
    struct v4l2_fract wish = rate->parm.capture.timeperframe;
    if (set && wish.numerator) {
        fps = wish.denominator / wish.numerator;
        limit_fps();
        LOG("S_PARM fps %d\n", fps);
    }
    memset(&rate->parm.capture, 0, sizeof rate->parm.capture);
    rate->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
    rate->parm.capture.timeperframe = (struct v4l2_fract){1, fps};
    rate->parm.capture.readbuffers = 2;
    return 0;
}

// Buffers -------------------------------------------------------------------------------------------------------------

static int request_buffers(struct v4l2_requestbuffers *request) {
    for (int i = 0; i < MAX_BUFFERS; i++) {
        free(buffers[i].data);
        buffers[i].data = NULL;
    }
    buffer_count = request->count > MAX_BUFFERS ? MAX_BUFFERS : request->count;
    buffer_size = (format.sizeimage + 4095) & ~4095ul;
    for (int i = 0; i < buffer_count; i++)
        buffers[i].data = aligned_alloc(4096, buffer_size);
    request->count = buffer_count;
    request->capabilities = V4L2_BUF_CAP_SUPPORTS_MMAP;
    empty.head = empty.tail = 0;
    return 0;
}

static int query_buffer(struct v4l2_buffer *buffer) {
    if ((int)buffer->index >= buffer_count)
        return fail(EINVAL);
    buffer->length = buffer_size;
    buffer->m.offset = buffer->index << OFFSET_SHIFT;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    return 0;
}

static int queue_buffer(struct v4l2_buffer *buffer) {
    if ((int)buffer->index >= buffer_count)
        return fail(EINVAL);
    pthread_mutex_lock(&guard);
    empty.items[empty.tail++ % QUEUE] = buffer->index;
    pthread_mutex_unlock(&guard);
    return 0;
}

static int dequeue_buffer(struct v4l2_buffer *buffer) {
    uint64_t count;
    if (!streaming)
        return fail(EINVAL);
    if (read(device, &count, sizeof count) != sizeof count)
        return fail(EAGAIN);
    pthread_mutex_lock(&guard);
    int index = filled.head == filled.tail ? -1 : filled.items[filled.head++ % QUEUE];
    pthread_mutex_unlock(&guard);
    if (index < 0)
        return fail(EAGAIN);
    buffer->index = index;
    buffer->memory = V4L2_MEMORY_MMAP;
    query_buffer(buffer);
    buffer->flags |= V4L2_BUF_FLAG_DONE;
    buffer->field = V4L2_FIELD_NONE;
    buffer->bytesused = buffers[index].used;
    buffer->sequence = buffers[index].sequence;
    buffer->timestamp.tv_sec = buffers[index].stamp.tv_sec;
    buffer->timestamp.tv_usec = buffers[index].stamp.tv_nsec / 1000;
    return 0;
}

// Questions -----------------------------------------------------------------------------------------------------------

static int describe(struct v4l2_capability *out) {
    memset(out, 0, sizeof *out);
    strcpy((char *)out->driver, "uvcvideo");
    strcpy((char *)out->card, "Fake UVC Camera");
    strcpy((char *)out->bus_info, "usb-fake-1");
    out->version = 0x050000;
    out->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    out->capabilities = out->device_caps | V4L2_CAP_DEVICE_CAPS;
    return 0;
}

static int describe_input(struct v4l2_input *out) {
    if (out->index)
        return fail(EINVAL);
    memset(out, 0, sizeof *out);
    strcpy((char *)out->name, "Camera 1");
    out->type = V4L2_INPUT_TYPE_CAMERA;
    return 0;
}

static int describe_format(struct v4l2_fmtdesc *out) {
    if (out->index > 1 || out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    out->flags = out->index ? V4L2_FMT_FLAG_COMPRESSED : 0;
    out->pixelformat = out->index ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
    strcpy((char *)out->description, out->index ? "Motion-JPEG" : "YUYV 4:2:2");
    return 0;
}

static int describe_size(struct v4l2_frmsizeenum *out) {
    const struct mode *mode = nth_mode(out->pixel_format, out->index);
    if (!mode)
        return fail(EINVAL);
    out->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    out->discrete = (struct v4l2_frmsize_discrete){mode->width, mode->height};
    return 0;
}

static int describe_rate(struct v4l2_frmivalenum *out) {
    const struct mode *mode = out->index ? NULL : mode_of(out->pixel_format, out->width);
    if (!mode)
        return fail(EINVAL);
    out->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    out->discrete = (struct v4l2_fract){1, mode->max_fps};
    return 0;
}

static int get_format(struct v4l2_format *out) {
    if (out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    out->fmt.pix = format;
    return 0;
}

static int answer(uint32_t request, void *argument) {
    switch (request) {
    case (uint32_t)VIDIOC_QUERYCAP:
        return describe(argument);
    case (uint32_t)VIDIOC_ENUMINPUT:
        return describe_input(argument);
    case (uint32_t)VIDIOC_G_INPUT:
        return *(int *)argument = 0;
    case (uint32_t)VIDIOC_S_INPUT:
        return *(int *)argument ? fail(EINVAL) : 0;
    case (uint32_t)VIDIOC_ENUM_FMT:
        return describe_format(argument);
    case (uint32_t)VIDIOC_ENUM_FRAMESIZES:
        return describe_size(argument);
    case (uint32_t)VIDIOC_ENUM_FRAMEINTERVALS:
        return describe_rate(argument);
    case (uint32_t)VIDIOC_G_FMT:
        return get_format(argument);
    case (uint32_t)VIDIOC_TRY_FMT:
        return try_or_set_format(argument, 1);
    case (uint32_t)VIDIOC_S_FMT:
        return try_or_set_format(argument, 0);
    case (uint32_t)VIDIOC_G_PARM:
        return get_or_set_rate(argument, 0);
    case (uint32_t)VIDIOC_S_PARM:
        return get_or_set_rate(argument, 1);
    case (uint32_t)VIDIOC_REQBUFS:
        return request_buffers(argument);
    case (uint32_t)VIDIOC_QUERYBUF:
        return query_buffer(argument);
    case (uint32_t)VIDIOC_QBUF:
        return queue_buffer(argument);
    case (uint32_t)VIDIOC_STREAMON:
        return stream_on();
    case (uint32_t)VIDIOC_STREAMOFF:
        return stream_off();
    case (uint32_t)VIDIOC_DQBUF:
        return dequeue_buffer(argument);
    default:
        return fail(EINVAL);
    }
}

// The calls that are replaced -----------------------------------------------------------------------------------------

static int open_camera(int flags) {
    if (unplugged())
        return fail(ENOENT);
    if (device >= 0)
        return fail(EBUSY);
    device = eventfd(0, EFD_SEMAPHORE | (flags & O_NONBLOCK ? EFD_NONBLOCK : 0));
    fps = 30;
    set_format(V4L2_PIX_FMT_YUYV, 640, 480);
    load_jpegs();
    return device;
}

static int open_any(const char *path, int flags, mode_t mode) {
    find_real();
    return path && strcmp(path, "/dev/video0") == 0 ? open_camera(flags) : real_open(path, flags, mode);
}

static mode_t mode_argument(int flags, va_list arguments) {
    return flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_any(path, flags, mode);
}

int close(int fd) {
    find_real();
    if (fd >= 0 && fd == device) {
        stream_off();
        device = -1;
    }
    return real_close(fd);
}

static void *map_any(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    find_real();
    if (fd < 0 || fd != device)
        return real_mmap(address, size, protection, flags, fd, offset);
    int index = offset >> OFFSET_SHIFT;
    if (index >= 0 && index < buffer_count)
        return buffers[index].data;
    errno = EINVAL;
    return MAP_FAILED;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    return map_any(address, size, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    return map_any(address, size, protection, flags, fd, offset);
}

int munmap(void *address, size_t size) {
    find_real();
    for (int i = 0; i < MAX_BUFFERS; i++)
        if (address && address == buffers[i].data)
            return 0;
    return real_munmap(address, size);
}

int ioctl(int fd, unsigned long request, ...) {
    find_real();
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (fd < 0 || fd != device)
        return real_ioctl(fd, request, argument);
    return unplugged() ? fail(ENODEV) : answer((uint32_t)request, argument);
}
