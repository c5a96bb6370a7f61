"""What Linux and the C library call things: packet sockets (packet(7), packet_mmap.rst), interfaces (netdevice(7))."""
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        uint16_t sa_family
    int socket(int, int, int)
    int bind(int, const sockaddr *, socklen_t)
    int setsockopt(int, int, int, const void *, socklen_t)
    int getsockopt(int, int, int, void *, socklen_t *)
    enum:
        AF_PACKET
        AF_UNIX
        SOCK_RAW
        SOCK_DGRAM
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_ATTACH_FILTER

cdef extern from "linux/filter.h" nogil:
    cdef struct sock_filter:
        pass
    cdef struct sock_fprog:
        unsigned short len
        sock_filter *filter

cdef extern from "net/if.h" nogil:
    cdef struct ifreq:
        char ifr_name[16]
        int ifr_ifindex
        short ifr_flags
        sockaddr ifr_hwaddr
    enum:
        IFF_UP
        SIOCGIFNAME
        SIOCGIFINDEX
        SIOCGIFFLAGS
        SIOCGIFHWADDR

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <sys/ioctl.h>
    #include <linux/if_ether.h>
    #include <linux/if_packet.h>
    #ifndef PACKET_IGNORE_OUTGOING
    #define PACKET_IGNORE_OUTGOING 23
    #endif
    """
    uint16_t htons(uint16_t) noexcept nogil

cdef extern from "linux/if_packet.h" nogil:
    cdef struct sockaddr_ll:
        unsigned short sll_family
        uint16_t sll_protocol
        int sll_ifindex
        unsigned short sll_hatype
        unsigned char sll_pkttype
        unsigned char sll_halen
        unsigned char sll_addr[8]
    cdef struct tpacket_req3:
        unsigned int tp_block_size
        unsigned int tp_block_nr
        unsigned int tp_frame_size
        unsigned int tp_frame_nr
        unsigned int tp_retire_blk_tov
        unsigned int tp_sizeof_priv
        unsigned int tp_feature_req_word
    cdef struct tpacket_hdr_v1:
        uint32_t block_status
        uint32_t num_pkts
        uint32_t offset_to_first_pkt
        uint32_t blk_len
    cdef union tpacket_bd_header_u:
        tpacket_hdr_v1 bh1
    cdef struct tpacket_block_desc:
        tpacket_bd_header_u hdr
    cdef struct tpacket_hdr_variant1:
        uint32_t tp_vlan_tci
        uint16_t tp_vlan_tpid
    cdef struct tpacket3_hdr:
        uint32_t tp_next_offset
        uint32_t tp_sec
        uint32_t tp_nsec
        uint32_t tp_snaplen
        uint32_t tp_len
        uint32_t tp_status
        uint16_t tp_mac
        uint16_t tp_net
        tpacket_hdr_variant1 hv1
    cdef struct tpacket_stats_v3:
        unsigned int tp_packets
        unsigned int tp_drops
        unsigned int tp_freeze_q_cnt
    cdef struct packet_mreq:
        int mr_ifindex
        unsigned short mr_type
        unsigned short mr_alen
        unsigned char mr_address[8]
    enum:
        SOL_PACKET
        PACKET_ADD_MEMBERSHIP
        PACKET_MR_PROMISC
        PACKET_VERSION
        PACKET_RESERVE
        PACKET_RX_RING
        PACKET_STATISTICS
        PACKET_FANOUT
        PACKET_IGNORE_OUTGOING
        PACKET_OUTGOING
        TPACKET_V3
        TPACKET_ALIGNMENT
        TP_STATUS_BLK_TMO
        TP_STATUS_KERNEL
        TP_STATUS_USER
        TP_STATUS_VLAN_VALID
        TP_STATUS_VLAN_TPID_VALID
