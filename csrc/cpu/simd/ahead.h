// Brings what will be packed next into the second-level cache, a few lines with each group of products: packing waits for
// memory, multiplying does not.

constexpr int64_t kMostAhead = 16;  // lines at a time

struct Ahead {
  struct Region {
    const char *at, *end;
  };
  Region regions[6];
  int count = 0, turn = 0;
  int64_t bytes = 0, lines = 0;  // lines with each group

  // Rows [row, row + rows) of the images [image, image + images) of an operand's tensors.
  void add(const Operand& o, int64_t element, int64_t image, int64_t images, int64_t row, int64_t rows) {
    int64_t row_bytes = o.width * o.pitch * element;
    int64_t begin = image * o.height + row, end = (image + images - 1) * o.height + minimum(row + rows, o.height);
    end = minimum(end, o.images * o.height);
    const void* tensors[] = {o.x, o.raw, o.out};
    for (const void* tensor : tensors) {
      if (tensor && begin < end) {
        regions[count++] = {(const char*)tensor + begin * row_bytes, (const char*)tensor + end * row_bytes};
        bytes += (end - begin) * row_bytes;
      }
    }
  }
  void add(const void* data, int64_t size) {
    regions[count++] = {(const char*)data, (const char*)data + size};
    bytes += size;
  }
  // All of it is to be there after so many groups.
  void spread(int64_t groups) {
    lines = groups > 0 ? minimum(bytes / kLineBytes / groups + 1, kMostAhead) : 0;
  }

  // Where the next product's groups find their lines, and how many each.
  template <typename A>
  RF_MEMBER void next(MicroTile<A>& t) {
    t.ahead_lines = 0;
    for (int i = 0; i < count && t.ahead_lines == 0; ++i) {
      turn = turn + 1 < count ? turn + 1 : 0;
      Region& region = regions[turn];
      if (region.at < region.end) {
        t.ahead = region.at;
        t.ahead_lines = lines;
        t.ahead_step = lines * kLineBytes;
        region.at += t.groups * lines * kLineBytes;
      }
    }
  }
};
