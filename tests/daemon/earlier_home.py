"""The files of a small home, as the version before the renames wrote them."""

from __future__ import annotations

import base64
import zlib

RUN = bytes.fromhex("dc5d7d9cce44390367dc104401a88832175727babe337d01ec88e48cd1674069")
# The certificate of round 1.
TIP = bytes.fromhex("07319b70777e6119b089f8d1dab552018f2a2e67a4dc778e9ba347d3e7649145")


def earlier_file(name: str) -> bytes:
    """Return the bytes of a file. The checkpoint and the ledger have two parameters."""
    return zlib.decompress(base64.b85decode(_FILES[name]))


# Compressed by zlib, in base 85.
_FILES = {
    "certificates": (
        "c-lL}%D}+L00EzMYE^n?9=dKLp|r<2-?4M&WTx$r>7M$P7mhBR|2%T@#G|bHrX1NkV@X(kN$SKS3U^{_=bUq"
        "~WKO>$;KI0~!$>?_eb+wYTE;gWPkJt<J7h9498q{8X3+6Jo$I~DtuP;<>0<kK#pJiMAA0R!>a1@xZRzm~M-&"
        "u4hTN8a{7Ouv#w0)T{n;QH36F0L(d$q2hdkhKzO<wEh{E6Gzg*St>aCW|sBBA^ck#(7udJ6>@0m=w{H#ClfN"
        "P-55ry@JZ$J37bMDcxYn4^lzFL<f{OhC#8~ismR2;f5AF*ir<fBX%XD<oJNz5bcY6iwhlaH*PzcM7TI6EjcF"
        "{P3iElg*nHXKpVUEIEa)oGUTq)8PUbd2nnGghXCzRaI%ctW<iDT4QR?P>c<%|$++8fA|tB(*Y?o|20`SrvV~"
        "!~N@$>$@e7=c-=R5y|jZ3GBDIvYLV6z=TOaLz#{!WYs>_=Gv_>Q>(i@d%I}cbfZ0?I-5_qwC`KV@_{e2XWC5"
        "@Ln9Ys@BI95N3X<?pyISbzwqM3vZUmK{IoE~D7Ub}iqfQ%3OBFt#8fBCz%0|C&>(Z8BMxd$UWz}O{(|rI1t$"
        "spkc4WHg9fu>`;%qmf<Ar-UF>ynQt^uit0$(`f4#e@ZDtEYCF@;528r~|*+PFce6`Pc@R1%$jAvPX98s|R%-"
        "p>6*5d<w8zgp%MXF0(eo<$V=w0&9to6Bn=;h0wPuu@@(bwR4n0Z8@^-I%dt!=lfs}$6Ie0Q|HF}c2nOXNZIB"
        "7q&ce+|>8bU;Fh<p(24p_Erq<l~-~o*bH$<&$JmRvwn`R^)9I;+}0D5m4$?kx^0PZ5&wTRTfrmc*H^eZ{#ZP"
        "TknIHN#1(d<7j&#?}es!#nj8I^5kzXQp(<DGPR&$qRhX0nls;dFZrprp38CdlePYpnp5hE{*)B{{=z(&fr)w"
        "IBnHL<H+}Q-QWc8w%N6p|6pXACO7im+axzOwa#9sCixqNH6N^iWQd5A!3dtGy`NgT$3PuX$sYO67py1U}$W5"
        "$>PcO<ZEdVJuHac*CTpzW*+h4MLcC)Og*q_URPv`pAT9j`RJ1>5>=48yWTNBva^Q$MCI6E``pC;*GQ}(faW_"
        "9M&RN<RB`$bfK_iO8ya8EwsJAJWpX$j%X%?R{21no{PEm1JE0(uGLd4=Tsypp2Kq|%bi{Jdgv{c&W$NsSW8j"
        "RLc7>B&9WB)8PW+~9)p?&UdwQ{q^Qv=Z|d-1m5TzTbAa_{_QTTMagUJgUj{Pt;M&=iXv2o^LBFStm^*H|H$2"
        ">G27UZWjL;vf(rjpPt&uR}<WFT={3eZ!cWw7B<D`$b&7n+qcH|$kY}8<-XmmyCLMY=D~%0Oky>+z83KEuuLM"
        "?%Ma3uo_o%^Q{BzZZ`__d;peN?Lw1Y_WgLsOgQBLM`>Iyr!}a@9Vf4;pwcFc@wiGyhN?pSk@|M$m!?rnZ_>K"
        "v1000V#kyr"
    ),
    "checkpoint": (
        "c-oayS&rLA6dWKo;co;Cdm)>gpV*ucwT)<tl$y(UFzAh<L~)TsjVKuge3Tp|NAMARl(YimCjkPa(FOE^s`na"
        "Q_2ZYjzs6VN?X6NBldNNJZ^pw{BX15B>x>7ZxU}l9Zcq23P@-&`P2JrCV_+OkwZ4_Yl0>>fD2$P7BAZA7OpH"
        "yy9LGTr5Q{*<8CM7qX#yo2M`1@uU=wWGt`_Pxtrju~0xl;eAw=0gFHOhI9SJ1kmIY1V<d8vS6NaTA#8ED12o"
        "s4Ev9SxVrG@HK#nnM;-P$`AtW`(7d3pI_oWB@@7x?=6db{YFM(Xp;ENs#wX!^&G<9XJdC9;YUf1Lgrj9Et~-"
        "uBX*GJ7c`ws~XbOAAI}$g-1+!6r*4UJJpF$J3ptKSgl4=;!6)8bSA+n*J=MVI*MIFL&~qCfO!M-g~yoytvF_"
        "krW`ULL8QDlE(D$6ZQ82ozm4-T>hbRQse17gjSsbx@Tp-3C0<sl{*sU@j{345P)JKS1o4a;u2khP?asDwdnV"
        "wz7QzP1*HADE6w?GI-Hx`I|tH>Du1=AgG#KdL_i;=RdD7oix;#V(b~r{o|bBu%_#JDi|sCCTN+V1LG$%<7Ca"
        "3v;ZyL;p_?pX3yZQJ^Ga@M-0qj7i79Itb2HPuOjjX1qS*I9R2PkY$MYQcc2sAvybiq<1qDyMW0rgl#`b2Xdo"
        "AQB8BS(SPjYWwoGa(~$@a(5Bidig3B8Xa{Oo-`rXD_bP9D!@Xdm|luV|iD{xuVbu4maXO?K}xS$@>tEH`U)y"
        "!jUqA&C+eAQ)JLupA5GA_o(JvEm%%7M3s<TzfOu*0Q8!xi)|@XPT+7X?z<PtQJLcxWz(tIu2UZNAPcx84uc8"
        "y5KE3O`acBr)~FQ4xCrbteQ&I-KqLtTxS668+lXL>OZQYe=~tSfV%FtySwkd=~#czQ{%hF?;3w-{QU4IrA#`"
        "8"
    ),
    "ledger.safetensors": (
        "c-o~?U1}Ra3^w#4W}mms{A(sJ$y097r(hQCNNX?nue)o~5)3&?kI*CZXw|sJHKZ+sh#gpI=KDTLqxtb+cCzQ"
        "HX*N6|;e<_7-9A^{ZrI>d-Bzn_dmfhi!_As$$-|AQ>S{P_WrwmSpp-K^XOpr4C~M`M(img3MuP_fEw*eekkX"
        "uEWEV5(08WJ@L{q;PA_Z2b78C$*(DJKd>LO{v)_bFL><k(XfQ~Xi<kX^dK$ao6q@5R{Eq|Swk-rFAai6$fu1"
        "fYGPR3#AnZzr(@4Ai$rt@KU6}f=oRgn56k0q$yX~H?;X20gK$QE~v6A#UwV3DN(pGt3CafaPtOXE53-={AjU"
        "HEuAef*1*mHjk-Z^Co+$<K?-r3GXXf{xyEN)S!gr5uwF)<=_C?Q9Ij$82@W$X;^-*JebmtW_9@xjITsJoa?p"
        "GGa8zXbJ6uE%l8nEZ(D8h+-K-xq*=<sr6CSad9kpjQcfa-bmSR!pB;NLU3x~n~*xx#uey!9InBi;}sTOV~wk"
        "=F4+HE(?8hUYc{KE>ler4{A9D)%bh&id--I&$oekp=lwa&qWB9g4-cy"
    ),
    "manifest": (
        "c-mc&Jx;?w5QR-Zf(jZ6N-jV_IDjJ>DkN^Onye@G3h%77vq?xgf|LVr0*W|45D<re%0R&ZkZ7oofR2I!+X+H"
        "2&A#_Z``$=%db{xO<gE?}G)`GV9B&0GRE`G@`0$*SPGS_2Xj*t-5~mFDaoSdai<VN`jFBq?MhupRNTDJe5;)"
        "buRGI+gs1X}*JJnQ1plCpbFg0yLdzLE7pZ;ZxU`bIZEI7>kgZlpC$K-3;MioX*<Pp%xy!oVcbg-TIuXn}Vm$"
        "sVuZ&&Nx=e?`*Iye~#R$W|~$XF$UjMbU{KL2c*4sGv$;Y*{Ou{IjXHT7@0HBAcoBSvW`;H>tu1UpRF8(D;)B"
        "RKOvXMDmET;7nQ+QtlxLvYa_GHe-#g<qM6g?USIGSP}ef@rx?%97?1j%IRm7%QD0rFT&vhT<sv;H~Y}t_vW+"
        "+Kwpq<;5HC8;^*<?*"
    ),
    "stands": (
        "c-qTlU|?WofB;?ReKIbmI#-_k{;F)s(a&G@?#VJN@XlG$AbkAw&8yotOrCT^;ZAJroO3Rg%;|RoTo_k$7>S3"
        "g@7iZv%lM|_NzcV}hfGGG8g|3k1?6>#k{ddIT)ee4h_PQwFMY|K^1j)N-7h~+ndk~qW41yuX?j>(>bk@uOG_"
        "+DDxBwR{Ty&t{()Wlt!Gz6#JU(6M!_f;1*2dTjDk@x3P!;w7zLwX6pVsVKrP@2#7t23DYl&@5??c`o~U%EDK"
        "{5pGza{UTO}cC)b-$a+4FPqwUemT{~rzZQ7{Td!6+C7qhJ(_f>AIEM!_f;1*3qj0068UcZ~"
    ),
    "task": (
        "c-osWW6GMe%%b8Fz4Fw|^o)`zER4*|%hPi56HAPZ4oq1EkxR-<ES|`M5MEoHnw+1P0@K66f~;pXR1&O-14&a"
        "xW=cwG9#qpLhcgXGdZ2P(Jq`%*H7S|tnJ~9a;zE*H1(5-3;DQTJn6N7)u_RH!RzV#sU#za9P@b7mk^vMkIdq"
        "ntb<(6G3QotQ7Oh)(Gyd_h4=(0KZSPgSie2COX4@&jnUyW>9$k{NPTODJ#{dGS?eAT#`4n6fbeaJQPTOyQF&"
        "?0cAk@5pF`l7G0d2Q@RP^iU?9vanuQuQPZ}Olya(Yo--}2R)=46(08?Qa&J7MCa^(BeL*$Ty(xdl0?@yU64M"
        ";HwOHWj7f"
    ),
}
