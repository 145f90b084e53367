// How long the RPC transport waits for a peer: TCP alone waits for ever for one whose cable is cut. For transport.cpp
// alone, after the headers of sockets.
#pragma once

#include <cerrno>
#include <chrono>

// a peer that has left is an error, and no signal that ends the process
#ifdef MSG_NOSIGNAL
static constexpr int RPC_SEND_FLAGS = MSG_NOSIGNAL;
#else
static constexpr int RPC_SEND_FLAGS = 0;
#endif

// seconds
static constexpr int RPC_CONNECT_TIMEOUT = 10;
static constexpr int RPC_LOST_AFTER      = 15; // without a sign of life, while there is something that the peer would confirm

// what blocks comes back this often, to look whether the peer is there; 0: it does not
// on Windows, a socket is of no use once that has happened
#ifdef _WIN32
static constexpr int RPC_TICK = 0;
#else
static constexpr int RPC_TICK = 1;
#endif

// the longest that a call blocks, connect() too where the system has that; 0: for ever
static void rpc_set_wait(sockfd_t fd, int seconds) {
#ifdef _WIN32
    const DWORD value = seconds*1000;
#else
    const struct timeval value = { seconds, 0 };
#endif
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, (const char *) &value, sizeof(value));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, (const char *) &value, sizeof(value));
}

// have the system ask an idle peer whether it is there, however long that one computes; and see rpc_wait
static void rpc_watch(sockfd_t fd) {
    rpc_set_wait(fd, RPC_TICK);

    const auto set = [fd](int level, int name, int value) {
        setsockopt(fd, level, name, (const char *) &value, sizeof(value));
    };

    set(SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    set(IPPROTO_TCP, TCP_KEEPIDLE, 5);
#endif
#ifdef TCP_KEEPINTVL
    set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
#endif
#ifdef TCP_KEEPCNT
    set(IPPROTO_TCP, TCP_KEEPCNT, 3);
#endif
#ifdef SO_NOSIGPIPE
    set(SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
}

// one message on its way: whether to go on waiting when a call came back with nothing
class rpc_wait {
public:
    rpc_wait(sockfd_t fd, int timeout) : fd(fd), timeout(timeout), last(clock::now()) {}

    // n: what send() or recv() returned
    bool again(ssize_t n) {
        if (n > 0) {
            last = clock::now();
            return false;
        }
        if (n == 0 || !is_tick()) {
            return false;
        }

        const auto waited = std::chrono::duration_cast<std::chrono::seconds>(clock::now() - last).count();

        is_slow = timeout > 0 && waited >= timeout;
        is_lost = waited >= RPC_LOST_AFTER && is_unconfirmed();

        return !is_slow && !is_lost;
    }

    const char * error() const {
        return is_slow ? "it did not answer in time" : is_lost ? "it cannot be reached any more" : "the connection was closed";
    }

private:
    using clock = std::chrono::steady_clock;

    static bool is_tick() {
#ifdef _WIN32
        return false;
#else
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
#endif
    }

    // what was sent, or the question whether there is room for more, was repeated in vain
    // the system itself goes on for a quarter of an hour; a peer that computes confirms all the same
    bool is_unconfirmed() const {
#ifdef __linux__
        struct tcp_info info = {};
        socklen_t       size = sizeof(info);

        return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && (info.tcpi_retransmits >= 6 || info.tcpi_probes >= 3);
#else
        return false;
#endif
    }

    const sockfd_t fd;
    const int      timeout; // seconds, 0: none

    clock::time_point last;

    bool is_slow = false;
    bool is_lost = false;
};
